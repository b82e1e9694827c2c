"""Put scans and their masks into one store for training and evaluation, after checking all of them.

    python Training/prepare.py SOURCE CASES.h5 --layout csv [--split train=0.7,val=0.1,test=0.2]
    Slicer --no-main-window --python-script Training/prepare.py -- SOURCE CASES.h5 ...

Everything that is wrong is told at once, and nothing is written then. Cases that were read are kept beside the store
until it is complete, so a run that was stopped, or whose faults were mended, goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib import __version__  # noqa: E402
from NeuraxisLib.atomic import atomic_write, output_error  # noqa: E402
from NeuraxisLib.errors import InputError  # noqa: E402
from NeuraxisLib.process import usable_cores  # noqa: E402
from StrokeCTPLib.colour_scales import parse_ranges  # noqa: E402
from Training.command import DONE, FAULT, SOME_LEFT_OUT, finish, run_command  # noqa: E402
from Training.data_checks import check_set, in_words, names  # noqa: E402
from Training.layouts import LAYOUTS, get_layout  # noqa: E402
from Training.layouts.base import Finding, LayoutOptions, Source, stem  # noqa: E402
from Training.layouts.hemseg import split_of_list  # noqa: E402
from Training.layouts.table import read_table  # noqa: E402
from Training.parts import Part, Reading, make_part, merge, remove_parts  # noqa: E402
from Training.pool import results  # noqa: E402
from Training.progress import ProgressLine  # noqa: E402
from Training.splits import by_counts, by_fractions, by_lists, k_folds, read_shares  # noqa: E402
from Training.store import CaseInfo  # noqa: E402
from Training.store_writer import COMPRESSIONS  # noqa: E402

LAYOUT_LINES = "\n".join(f"  {name:13} {words}" for name, (_, words) in LAYOUTS.items())
EPILOG = f"""\
layouts:
{LAYOUT_LINES}

Splits go by patient. Patients are stored as pseudonyms, which stay the same from store to store; case names stay.
Exit status: 0 done, 1 faults (all are told, nothing is written), 2 a bad command line, 3 done but for some cases
(--skip-faulty), 130 stopped.

examples:
  python Training/prepare.py simulated/cases.csv cases.h5
  python Training/prepare.py IPH_IVH hemseg.h5 --layout hemseg --allow-leaks
  python Training/prepare.py stage_2_train hemseg.h5 --layout hemseg-dicom --annotations info_500.jsonl --truth labels
  python Training/prepare.py SLEX slex.h5 --layout slexnet-png --spacing-mm 0.42,0.42,5 --split train=180,val=20,test=50
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="prepare.py",
        description="Put scans and their masks into one store for training and evaluation, after checking all of them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, help="folder or table of the data, see layouts")
    add("output", type=Path, help="store to write (.h5); an earlier one is replaced when the new one is complete")
    add("--layout", choices=list(LAYOUTS), default="csv", help="how the data lie (default: %(default)s)")
    _add_meanings(parser.add_argument_group("what the data mean"))
    _add_splits(parser.add_argument_group("who is trained on"))
    _add_running(parser.add_argument_group("running"))
    return parser.parse_args(arguments)


def _add_meanings(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--unit", choices=("auto", "HU", "grey"), default="auto",
        help="unit of the images; auto: as the file says, or HU where it looks like a CT (default: auto)")  # fmt: skip
    add("--spacing-mm", type=_spacing, metavar="X,Y,Z", help="voxel size of pictures, which do not say theirs")
    add("--binary", action="store_true", help="every marked voxel is label 1, whatever its value (also 255)")
    add("--ignored", type=int, metavar="VALUE", help="value of the masks that means 'nobody knows'")
    add("--brain", action=argparse.BooleanOptionalAction, default=None,
        help="find the brain and store it as the searched region (default: where the unit is HU)")  # fmt: skip
    add("--truth", type=Path, metavar="FOLDER", help="hemseg-dicom: the masks")
    add("--annotations", type=Path, metavar="FILE", help="hemseg, hemseg-dicom: the jsonl list of the release")
    add("--patients", type=Path, metavar="CSV", help="columns id,patient: who was scanned, where the data do not say")
    add("--image-suffix", default="", metavar="TEXT", help="bids: which images (default: ct)")
    add("--mask-filter", default="", metavar="TEXT", help="bids: text in the names of the masks to take")
    add("--colours", choices=("keep", "numbers"), default="keep",
        help="stavanger: keep the maps in colours, as the published networks read them, or turn them into numbers by "
             "their colour bar (default: %(default)s)")  # fmt: skip
    add("--ranges", default="", metavar="MAP=TOP,...",
        help="maps, stavanger: values at the upper ends of the colour bars, cbf=100,tmax=12")  # fmt: skip
    add("--disc-points", choices=("posterior", "centre"), default="posterior",
        help="spine-generic, sct-discs: where the labels lie in the discs; those at the back edge are moved to the "
             "centre (default: %(default)s)")  # fmt: skip
    add("--keep-patient-ids", action="store_true", help="store patients as they are called, not as pseudonyms")


def _add_splits(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    one = group.add_mutually_exclusive_group()
    one.add_argument("--split", metavar="NAME=SHARE,...",
        help="train=0.7,val=0.3: at random; train=180,val=20,test=50: the first patients, the next ...")  # fmt: skip
    one.add_argument("--folds", type=int, metavar="K", help="splits fold0 ... for cross-validation")
    one.add_argument("--lists", type=Path, nargs="+", default=[], metavar="CSV",
        help="train_set.csv val_set.csv ...: column filename, id or patient; the first word is the split")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of --split and --folds (default: %(default)s)")
    add("--allow-leaks", action="store_true",
        help="keep a published split that has one patient in two parts; it is reported as a warning")  # fmt: skip


def _add_running(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--skip-faulty", action="store_true", help="leave out cases with faults instead of stopping; they are named")
    add("--check-only", action="store_true", help="read and check everything, write no store")
    add("--report", type=Path, metavar="JSON", help="write all findings and a summary there")
    add("--compression", choices=COMPRESSIONS, default=COMPRESSIONS[0],
        help="of the store: none is read quickest but takes 3 to 5 times the disk of lzf, about 15 MB for a head CT of "
             "40 slices; gzip packs a fifth smaller than lzf (default: %(default)s)")  # fmt: skip
    add("--workers", type=int, default=max(1, usable_cores() - 1), metavar="N",
        help="processes (default: all cores but one, here %(default)s)")  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run; returns the exit status: 0 done, 1 faults, 2 a bad command line, 3 done but for some cases, 130 stopped."""
    return run_command(parse, _work, arguments)


def _work(options: argparse.Namespace) -> int:
    if options.output.suffix != ".h5":
        raise InputError(f"The store '{options.output.name}' must end in .h5; give it that ending.")
    told = LayoutOptions(
        options.spacing_mm, options.unit, options.truth, options.annotations, tuple(options.lists), options.patients,
        options.binary, options.ignored, options.image_suffix, options.mask_filter, options.colours,
        tuple(sorted(parse_ranges(options.ranges).items())), options.disc_points,
    )  # fmt: skip
    if not options.source.exists():
        raise InputError(f"'{options.source.name}' was not found; check the name.")
    found = get_layout(options.layout).find(options.source, told)
    if not found.sources and not found.findings:
        raise InputError(f"'{options.source.name}' lists no cases; check the name and --layout.")
    reading = Reading(options.layout, told, options.brain, options.compression)
    sources = decide(found.sources, options)
    with ExitStack() as stack:
        folder = _parts_folder(options, stack)
        parts = read_all(sources, reading, folder, options.workers)
        own = [*found.findings, *(finding for part in parts for finding in part.findings)]
        infos = _infos(parts, sources, own if options.skip_faulty else [])
        # a patient in two splits is told even where other faults have to be mended first
        everyone = infos if options.skip_faulty else sources
        findings = [*own, *check_set(infos, options.allow_leaks, everyone)]
        named = {name for finding in own if finding.fault for name in finding.cases}
        left_out = sorted(named.union(source.id for source in sources) - {info.id for info in infos})
        status = _judge(findings, own, len(infos), options)
        if options.report:
            _report(options.report, findings, infos, left_out, status)
        if findings:
            print(in_words(findings), file=sys.stderr)
        if status == FAULT or options.check_only:
            print(f"Checked {len(sources)} cases; {_counted(findings)}; {len(infos)} can be used; no store written.")
            return status
        kept = {info.id for info in infos}
        made = [part for part in parts if part.name in kept]
        merge(made, sources, options.output, _provenance(options, findings, left_out), options.compression)
        remove_parts(folder)
    print(_summary(options.output, infos, left_out))
    return status


def decide(sources: Sequence[Source], options: argparse.Namespace) -> list[Source]:
    """The cases with patient and split as the command line says; patients become pseudonyms.

    Raises InputError if the splits cannot be made.
    """
    if options.patients:
        known = {row["id"]: row["patient"] for row in read_table(options.patients, ("id", "patient"))}
        sources = [replace(source, patient=known.get(source.id, source.patient)) for source in sources]
    split_of = None
    if options.split:
        shares, counts = read_shares(options.split)
        split_of = by_counts(sources, shares) if counts else by_fractions(sources, shares, options.seed)
    elif options.folds is not None:
        split_of = k_folds(sources, options.folds, options.seed)
    elif options.lists and not options.layout.startswith("hemseg"):  # these read their lists themselves
        split_of = by_lists(sources, {split_of_list(path): _listed(path) for path in options.lists})
    if split_of is not None:
        sources = [replace(source, split=split_of[source.id]) for source in sources]
    if options.keep_patient_ids:
        return list(sources)
    return [replace(source, patient=pseudonym(source.patient)) for source in sources]


def pseudonym(patient: str) -> str:
    """A name for a patient that is the same in every store, so that two stores can be compared for patients in both.

    It hides the name from a reader, not from somebody who can try all names there are.
    """
    return "P-" + hashlib.sha256(f"neuraxis patient {patient}".encode()).hexdigest()[:12]


def _listed(path: Path) -> list[str]:
    rows = read_table(path)
    column = next((name for name in ("filename", "id", "patient") if rows and name in rows[0]), None)
    if column is None:
        raise InputError(f"The list '{path.name}' has no column filename, id or patient; add one.")
    return [stem(Path(row[column])) if column == "filename" else row[column] for row in rows]


def read_all(sources: Sequence[Source], reading: Reading, folder: Path, workers: int) -> list[Part]:
    """Read every case in several processes; parts that are there already are taken."""
    parts: dict[int, Part] = {}
    with ProgressLine() as line:
        jobs = [(source, reading, folder) for source in sources]
        for done, (number, part) in enumerate(results(make_part, jobs, workers), start=1):
            parts[number] = part
            line(done / len(jobs), f"read {done} of {len(jobs)} cases")
    return [parts[number] for number in sorted(parts)]


def _parts_folder(options: argparse.Namespace, stack: ExitStack) -> Path:
    if options.check_only:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="neuraxis-")))
    folder = options.output.with_name(options.output.name + ".parts")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise output_error(error, options.output.name) from None
    return folder


def _infos(parts: Sequence[Part], sources: Sequence[Source], skipped: Sequence[Finding]) -> list[CaseInfo]:
    """The index of what will be stored: parts without faults, and none that a fault names where those are skipped."""
    faulty = {name for finding in skipped if finding.fault for name in finding.cases}
    return [
        replace(part.info, patient=source.patient, group=source.group, split=source.split)
        for part, source in zip(parts, sources, strict=True)
        if part.info is not None and part.name not in faulty
    ]


def _judge(findings: list[Finding], own: list[Finding], stored: int, options: argparse.Namespace) -> int:
    """The exit status. Faults of single cases can be skipped; faults of the whole set, and an empty set, cannot."""
    skipped = [finding for finding in own if finding.fault and finding.cases and options.skip_faulty]
    if stored == 0 or any(finding.fault and finding not in skipped for finding in findings):
        return FAULT
    return SOME_LEFT_OUT if skipped else DONE


def _provenance(options: argparse.Namespace, findings: list[Finding], left_out: list[str]) -> dict:
    """How the store came to be; no path and no patient."""
    said = ("layout", "unit", "spacing_mm", "binary", "ignored", "brain", "split", "folds", "seed", "allow_leaks",
            "colours", "ranges", "disc_points")  # fmt: skip
    return {
        "made_by": f"neuraxis {__version__} prepare",
        "date": date.today().isoformat(),
        "options": {name: getattr(options, name) for name in said},
        "findings": [finding.to_dict() for finding in findings],
        "left_out": left_out,
    }


def _report(path: Path, findings: list[Finding], infos: list[CaseInfo], left_out: list[str], status: int) -> None:
    told = {
        "status": status,
        "cases": len(infos),
        "patients": len({info.patient for info in infos}),
        "splits": dict(Counter(info.split for info in infos)),
        "groups": dict(Counter(info.group for info in infos)),
        "left_out": left_out,
        "findings": [finding.to_dict() for finding in findings],
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")


def _counted(findings: list[Finding]) -> str:
    faults = sum(finding.fault for finding in findings)
    return f"{faults} fault{'s' * (faults != 1)}, {len(findings) - faults} warning{'s' * (len(findings) - faults != 1)}"


def _summary(output: Path, infos: list[CaseInfo], left_out: list[str]) -> str:
    lines = [f"Wrote {output}: {len(infos)} cases of {len({info.patient for info in infos})} patients, "
             f"{output.stat().st_size / 1e6:.1f} MB"]  # fmt: skip
    for word in ("split", "group", "unit"):
        counts = Counter(getattr(info, word) or "none" for info in infos)
        lines.append(f"  by {word}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    volumes = Counter()
    for info in infos:
        volumes.update(info.truth_ml or {})
    if volumes:
        lines.append("  marked: " + ", ".join(f"label {value} {ml:.1f} mL" for value, ml in sorted(volumes.items())))
    if left_out:
        lines.append(f"  left out: {names(left_out)}")
    return "\n".join(lines)


def _spacing(text: str) -> tuple[float, float, float]:
    values = tuple(float(part) for part in text.replace("x", ",").split(","))
    if len(values) != 3 or not all(0 < value < 100 for value in values):
        raise argparse.ArgumentTypeError("three numbers in mm, such as 0.42,0.42,5")
    return values


if __name__ == "__main__":
    finish(main(sys.argv[1:]))
