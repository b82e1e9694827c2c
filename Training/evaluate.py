"""Judge models or results against the truth: tables, plots and a report, several methods side by side.

python Training/evaluate.py --model A=a.safetensors --model B=b.safetensors --store cases.h5 --split test --output F
python Training/evaluate.py --results A=results_a --results B=results_b --truth FOLDER_OR_STORE --output F
python Training/evaluate.py --task discs --model A=discs.safetensors --store spines.h5 --split test --output F
Slicer --no-main-window --python-script Training/evaluate.py -- --results A=results_a --truth FOLDER --output F
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib import RESEARCH_USE_NOTICE  # noqa: E402
from NeuraxisLib.errors import InputError  # noqa: E402
from NeuraxisLib.task import TASKS, Progress, get_task  # noqa: E402
from StrokeCTPLib.networks.classes import STRUCTURES  # noqa: E402
from StrokeCTPLib.threshold_rules import THRESHOLD_RULES  # noqa: E402
from Training.command import SOME_LEFT_OUT, finish, run_command  # noqa: E402
from Training.progress import ProgressLine  # noqa: E402

if TYPE_CHECKING:
    from NeuraxisLib.result import Table
    from Training.evaluation.cases import Case, Cases
    from Training.evaluation.methods import Method, Prediction
    from Training.evaluation.report import DrawnCase
    from Training.evaluation.rules import Rules
    from Training.evaluation.scores import Score
    from Training.evaluation.summary import Evaluation

#: Task whose models are judged on perfusion maps of a store.
STROKE = "stroke"
#: Task whose points are judged against the disc centres of a store.
DISCS = "discs"
RULE_NAMES = ("neuraxis", "instance", "legacy_hemseg", "legacy_drunet", "legacy_slex")

EPILOG = """\
Methods stand in the tables in the order given; the first is what the others are compared with. A case without a
result, or on which a model fails, counts as missed and is listed with its error; the exit status is then 3.

examples:
  python Training/evaluate.py --model DR-UNet=drunet.safetensors --model SLEX=slex.safetensors \\
      --store cases.h5 --split test --output comparison
  python Training/evaluate.py --model "MC dropout=a.safetensors,uncertainty=mc_dropout" \\
      --model "Ensemble=a.safetensors,uncertainty=ensemble,ensemble=b.safetensors,c.safetensors" \\
      --store cases.h5 --output uncertainty
  python Training/evaluate.py --task stroke --structure core --model Starter=stroke.safetensors --model syngo=syngo \
      --model DEFUSE=defuse3 --store maps.h5 --split test --output core
  python Training/evaluate.py --task discs --model Chain=discs.safetensors \\
      --model "Released search=discs.safetensors,naming=skeleton" --store spines.h5 --split test --output discs
  python Training/evaluate.py --results mine=results --truth truths --images scans --rules legacy_hemseg --output h
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description="Judge models or results against the truth and write a report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    methods = {"dest": "methods", "action": "append"}
    add("--model", **methods, type=lambda text: ("model", text), metavar="NAME=FILE[,OPTION=VALUE]",
        help="model file or installed model to run, with options of its task; of strokes also a published rule: "
        f"{', '.join(THRESHOLD_RULES)}; repeatable")  # fmt: skip
    add("--results", **methods, type=lambda text: ("results", text), metavar="NAME=FOLDER",
        help="folder of result folders CASE/, or of masks CASE.nii.gz; repeatable")  # fmt: skip
    add("--truth", "--store", type=Path, required=True, metavar="STORE_OR_FOLDER",
        help="store, or folder of truths CASE.nii.gz or CASE_truth.nii.gz")  # fmt: skip
    add("--split", action="append", default=[], metavar="NAME", help="only this split of the store; repeatable")
    add("--images", type=Path, metavar="FOLDER", help="images CASE.nii.gz of a folder of truths")
    add("--groups", type=Path, metavar="CSV", help="columns id and group, for a folder of truths")
    add("--output", type=Path, required=True, metavar="FOLDER", help="new, empty, or an earlier evaluation (replaced)")
    add("--rules", default="neuraxis", metavar="NAME", help=f"one of: {', '.join(RULE_NAMES)} (default: %(default)s)")
    add("--tolerance-mm", type=float, nargs="+", metavar="MM", help="tolerances of the surface distance NSD")
    add("--bands-ml", type=float, nargs="+", metavar="ML", help="edges of the volume bands (default: 5 30 60)")
    add("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    add("--task", default=next(iter(TASKS)), choices=sorted({*TASKS, STROKE}),
        help="task of the models (default: %(default)s)")  # fmt: skip
    add("--structure", choices=list(STRUCTURES), default="hypoperfused",
        help="what of a stroke to judge: core, penumbra, or both together (default: %(default)s)")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, mps or openvino (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's choice)")
    add("--keep", type=Path, metavar="FOLDER", help="keep the models' result folders as FOLDER/NAME/CASE")
    add("--no-pictures", action="store_true", help="no overlays and animations of cases")
    options = parser.parse_args(arguments)
    if not options.methods:
        parser.error("name at least one --model or --results")
    return options


def main(arguments: list[str]) -> int:
    """Run; returns the exit status: 0 done, 1 a fault, 2 a bad command line, 3 done with failed cases, 130 stopped."""
    return run_command(parse, evaluate, arguments, interrupted="Interrupted; nothing was written.")


def evaluate(options: argparse.Namespace) -> int | None:
    """Do what the options ask for; returns SOME_LEFT_OUT if cases failed or could not be judged."""
    from Training.evaluation.cases import open_cases
    from Training.evaluation.rules import rules_named

    if options.task == DISCS:
        return _evaluate_discs(options)
    changes = {"tolerances_mm": options.tolerance_mm, "bands_ml": options.bands_ml}
    changes = {name: tuple(values) for name, values in changes.items() if values}
    rules = rules_named(options.rules, seed=options.seed, **changes)
    values = STRUCTURES[options.structure] if options.task == STROKE else ()
    cases = open_cases(options.truth, tuple(options.split), options.images, options.groups, values)
    methods = make_methods(options, cases)
    with ProgressLine() as line:
        evaluation, tables = write_evaluation(
            options.output, cases, methods, rules, Progress(line), not options.no_pictures
        )
    _print_outcome(evaluation, tables, options.output)
    failed = evaluation.unjudged or any(s.failed for s in evaluation.scores)
    return SOME_LEFT_OUT if failed else None


def _evaluate_discs(options: argparse.Namespace) -> int | None:
    """The same for discs, whose names and places count instead of masks."""
    from Training.evaluation.disc_judging import DiscResults
    from Training.evaluation.disc_report import write_disc_evaluation
    from Training.evaluation.methods import ModelMethod
    from Training.evaluation.output import REPORT_FILE, file_stem
    from Training.evaluation.tables import as_text
    from Training.store import Store

    if options.rules != RULE_NAMES[0] or options.tolerance_mm or options.bands_ml or options.images or options.groups:
        raise InputError("--rules, --tolerance-mm, --bands-ml, --images and --groups are for masks; leave them out.")
    if options.truth.is_dir():
        raise InputError("Discs are judged on a store; make one of the folder with 'prepare' and a layout of spines.")
    store, made = Store(options.truth), []
    ids = store.of_split(*options.split) if options.split else store.ids
    for kind, name, place in _named_methods(options):
        if kind == "results":
            made.append(DiscResults(name, Path(place), ids))
            continue
        model, settings = _model_and_options(place)
        keep = options.keep / file_stem(name) if options.keep else None
        made.append(ModelMethod(name, get_task(DISCS), model, {"device": options.device, **settings}, keep))
    with ProgressLine() as line:
        evaluation, tables = write_disc_evaluation(
            options.output, store, ids, made, Progress(line), not options.no_pictures
        )
    print("\n\n".join(as_text(table) for table in tables.values()))
    for one in evaluation.judged:
        if one.error:
            print(f"{one.method}, {one.case}: {one.error}", file=sys.stderr)
    print(f"\nReport: {os.path.join(options.output, REPORT_FILE)}\n{RESEARCH_USE_NOTICE}")
    return None if evaluation.is_complete else SOME_LEFT_OUT


def write_evaluation(
    output: Path, cases: Cases, methods: Sequence[Method], rules: Rules, progress: Progress, pictures: bool = True
) -> tuple[Evaluation, list[Table]]:
    """Judge all methods and write the folder of the evaluation, whole or not at all.

    Args:
        output: folder; may be absent, empty or an earlier evaluation, which is replaced.
        cases: truth and images.
        methods: in the order of the tables.
        rules: by which.
        progress: told how far it is; cancels.
        pictures: whether to draw overlays and animations.

    Returns:
        What was judged, and the tables of the report.

    Raises:
        OutputError: the folder holds something else, may not be written to, or the disk is full.
        InputError: no case could be judged.
    """
    from Training.evaluation.judge import judge
    from Training.evaluation.output import REPORT_FILE, whole_folder, write_numbers, write_summary
    from Training.evaluation.report import draw_figures, render_report, report_tables
    from Training.evaluation.summary import differences
    from Training.evaluation.tables import LAYOUTS

    with whole_folder(output) as folder:
        drawer = CaseDrawer(folder)
        evaluation = judge(cases, methods, rules, progress.part(0.0, 0.95), drawer if pictures else None)
        if not evaluation.scores:
            reason = next(iter(evaluation.unjudged.values()))
            raise InputError(f"No case of '{cases.name}' could be judged; the first says: {reason}")
        progress(0.95, "Writing the report")
        summaries = evaluation.summaries()
        found = differences(evaluation, ["dice", f"hd95_{rules.unit}", "volume_error_abs_ml"])
        layouts = {stem: made(evaluation, summaries) for stem, made in LAYOUTS.items()}
        tables = report_tables(evaluation, summaries, found)
        write_numbers(folder, evaluation, summaries, found, layouts)
        figures = draw_figures(evaluation, summaries)
        (folder / "plots").mkdir()
        for stem, figure in figures.items():
            (folder / "plots" / f"{stem}.svg").write_text(figure.svg, encoding="utf-8")
        shown = [list(layouts.values()), list(figures.values()), drawer.drawn]
        (folder / REPORT_FILE).write_text(render_report(evaluation, tables, *shown, folder), encoding="utf-8")
        write_summary(folder, evaluation, summaries, found)
        progress(1.0, "Writing the report")
    return evaluation, [*tables, *layouts.values()]


class CaseDrawer:
    """Draws every judged case into the folder of the evaluation.

    Attributes:
        drawn: what it has drawn, in the order of the cases.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.drawn: list[DrawnCase] = []
        self._stems: set[str] = set()

    def __call__(self, case: Case, predictions: dict[str, Prediction | None], scores: dict[str, Score]) -> None:
        """Write the pictures of one case."""
        from Training.evaluation.output import file_stem
        from Training.evaluation.pictures import draw_case
        from Training.evaluation.report import DrawnCase

        stem = file_stem(case.id, self._stems)
        self._stems.add(stem)
        made = draw_case(case, predictions)
        drawn = DrawnCase(case.id, f"overlays/{stem}.png", f"animations/{stem}.gif", made.slice_number)
        for place, content in ((drawn.overlay, made.overlay_png), (drawn.animation, made.animation_gif)):
            (self._folder / place).parent.mkdir(exist_ok=True)
            (self._folder / place).write_bytes(content)
        self.drawn.append(drawn)


def make_methods(options: argparse.Namespace, cases: Cases) -> list[Method]:
    """The methods of a command line, in its order; InputError or ModelError if one cannot be used."""
    from Training.evaluation.methods import FolderMethod, ModelMethod
    from Training.evaluation.output import file_stem
    from Training.evaluation.stroke_methods import stroke_method

    made: list[Method] = []
    for kind, name, place in _named_methods(options):
        if kind == "results":
            made.append(FolderMethod(name, Path(place), cases.ids, cases.values))
            continue
        model, settings = _model_and_options(place)
        if options.task == STROKE:
            made.append(stroke_method(name, model, {"device": options.device, **settings}, options.structure))
            continue
        keep = options.keep / file_stem(name) if options.keep else None
        made.append(ModelMethod(name, get_task(options.task), model, {"device": options.device, **settings}, keep))
    return made


def _named_methods(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """(kind, name, file or folder) of the methods of a command line; sets the threads that they run with."""
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    found: list[tuple[str, str, str]] = []
    for kind, text in options.methods:
        name, separator, place = text.partition("=")
        if not separator or not name:
            raise InputError(f"'{text}' does not say how to call the method; write NAME={text or 'FILE'}.")
        if name in [known for _, known, _ in found]:
            raise InputError(f"Two methods are called '{name}'; give each its own name.")
        found.append((kind, name, place))
    return found


def _model_and_options(text: str) -> tuple[str, dict[str, str]]:
    """``FILE,OPTION=VALUE,...`` taken apart; a part without ``=`` belongs to the value before it (a list)."""
    model, *parts = text.split(",")
    settings: dict[str, str] = {}
    for part in parts:
        name, separator, value = part.partition("=")
        if separator:
            settings[name.strip().replace("-", "_")] = value.strip()
        elif settings:
            settings[next(reversed(settings))] += f",{part}"
        else:
            raise InputError(f"'{part}' is no option of a model; write OPTION=VALUE after the comma.")
    return model, settings


def _print_outcome(evaluation: Evaluation, tables: Sequence[Table], output: Path) -> None:
    """The tables on stdout; failures and notes on stderr."""
    from Training.evaluation.output import REPORT_FILE
    from Training.evaluation.tables import as_text

    print("\n\n".join(as_text(table) for table in tables))
    for s in evaluation.scores:
        if s.failed:
            print(f"{s.method}, {s.case}: {s.error}", file=sys.stderr)
    for case, reason in evaluation.unjudged.items():
        print(f"{case} was not judged: {reason}", file=sys.stderr)
    for note in evaluation.notes:
        print(f"Note: {note}", file=sys.stderr)
    print(f"\nReport: {os.path.join(output, REPORT_FILE)}\n{RESEARCH_USE_NOTICE}")


if __name__ == "__main__":
    finish(main(sys.argv[1:]))
