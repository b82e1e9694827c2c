"""The folder of an evaluation, written whole or not at all.

cases.csv          one row per case and method; slices.csv where the rules judge slices
summary.csv        one row per method, group and metric
summary.json       the same with rules, methods, reliability curves and what was left out
table_*.csv        the comparison in the layouts of the papers
report.html        for reading, self-contained
plots/*.svg        its figures
overlays/*.png, animations/*.gif   pictures of every case
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from NeuraxisLib import RESEARCH_USE_NOTICE, result_text
from NeuraxisLib.atomic import output_error
from NeuraxisLib.errors import OutputError
from NeuraxisLib.provenance import software
from NeuraxisLib.result import Table
from NeuraxisLib.run import remove_leftovers
from Training.evaluation.overlap import Overlap
from Training.evaluation.rules import metrics
from Training.evaluation.summary import Difference, Evaluation, Summary, band_of

SCHEMA, SCHEMA_VERSION = "neuraxis-evaluation", 1
SUMMARY_FILE, CASES_FILE, REPORT_FILE = "summary.json", "cases.csv", "report.html"


# -- the folder -----------------------------------------------------------------------------------------------


def check_output(output: Path) -> None:
    """Raise OutputError unless ``output`` is absent, an empty folder or an earlier evaluation with nothing added."""
    try:
        if not output.exists():
            return
        if not output.is_dir():
            raise OutputError(f"'{output.name}' is a file; name a folder for the evaluation.")
        added = sorted(_files(output) - _written(output))
    except OSError as error:
        raise output_error(error, output.name) from error
    if added:
        raise OutputError(
            f"The folder '{output.name}' holds '{added[0]}', which is not of an earlier evaluation; "
            "name a new or an empty folder."
        )


@contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """Give a folder to write to, which takes the place of ``output`` only if the block ends without an error.

    Raises:
        OutputError: the folder holds something else, may not be written to, or the disk is full.
    """
    output = Path(os.path.abspath(output))
    check_output(output)
    remove_leftovers(output)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        old = output.with_name(f".{output.name}.old.{os.getpid()}.partial")
        if output.exists():
            output.rename(old)
        partial.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise output_error(error, output.name) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _written(folder: Path) -> set[str]:
    """The files of the earlier evaluation in a folder; empty if there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
        if document["schema"] == SCHEMA:
            return {SUMMARY_FILE, *document["files"]}
    return set()


def file_stem(name: str, taken: Iterable[str] = ()) -> str:
    """A name as a file stem: letters, digits, dot, dash; with a number where that is taken already."""
    stem = plain = re.sub(r"[^\w.-]+", "_", name).strip(".") or "case"
    number = 1
    while stem in taken:
        number += 1
        stem = f"{plain}_{number}"
    return stem


# -- files ----------------------------------------------------------------------------------------------------


def write_numbers(
    folder: Path, evaluation: Evaluation, summaries: Sequence[Summary], found: Sequence[Difference],
    tables: dict[str, Table],
) -> None:  # fmt: skip
    """Write the CSV files; :func:`write_summary` comes last."""
    write_csv(folder / CASES_FILE, *_case_rows(evaluation))
    write_csv(folder / "summary.csv", *_summary_rows(evaluation, summaries))
    if evaluation.rules.by_slice:
        write_csv(folder / "slices.csv", *_slice_rows(evaluation))
    if found:
        write_csv(folder / "differences.csv", list(asdict(found[0])), [asdict(d).values() for d in found])
    for stem, table in tables.items():
        heads = [f"{head} [{unit}]" if unit else head for head, unit in table.columns]
        write_csv(folder / f"{stem}.csv", heads, table.rows)


def write_summary(
    folder: Path, evaluation: Evaluation, summaries: Sequence[Summary], found: Sequence[Difference]
) -> None:
    """Write summary.json, which names all other files of the folder."""
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "research_use_notice": RESEARCH_USE_NOTICE,
        **software(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "truth": evaluation.source,
        "rules": asdict(evaluation.rules),
        "methods": evaluation.methods,
        "notes": evaluation.notes,
        "unjudged": evaluation.unjudged,
        "failures": [{"case": s.case, "method": s.method, "error": s.error} for s in evaluation.scores if s.failed],
        "summaries": [_summary_record(s) for s in summaries],
        "differences": [asdict(d) for d in found],
        "files": sorted(_files(folder) - {SUMMARY_FILE}),
    }
    text = json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")


def _summary_record(summary: Summary) -> dict:
    calibration = None
    if summary.calibration is not None:
        sums = summary.calibration
        confidence, share, counts = sums.reliability()
        curve = {"mean_probability": confidence, "share_of_lesion": share, "voxels": counts}
        calibration = {"voxels": sums.n, "ece": sums.ece, "nll": sums.nll, "brier": sums.brier, "reliability": curve}
    return {
        "method": summary.method,
        "kind": summary.kind,
        "group": summary.group,
        "counts": asdict(summary.counts),
        "metrics": {key: asdict(statistic) for key, statistic in summary.statistics.items()},
        "volume": summary.volume.to_dict(),
        "together": summary.overlap.measures(),
        "calibration_pooled": calibration,
    }


def _case_rows(evaluation: Evaluation) -> tuple[list[str], list[list]]:
    keys = [metric.key for metric in metrics(evaluation.rules)]
    heads = [
        "method",
        "case",
        "group",
        "band",
        "status",
        "error",
        "empty",
        "counted",
        "truth_ml",
        "predicted_ml",
        "abc2_truth_ml",
    ]
    rows = [
        [s.method, s.case, s.group, band_of(s.truth_ml, evaluation.rules), "failed" if s.failed else "judged", s.error,
         s.emptiness, s.counted, s.truth_ml, s.predicted_ml, s.abc2_ml, *asdict(s.overlap).values(),
         *(s.values[key] for key in keys)]
        for s in evaluation.scores
    ]  # fmt: skip
    rows += [
        ["", case, "", "", "not judged", reason, *[""] * (9 + len(keys))]
        for case, reason in evaluation.unjudged.items()
    ]
    return [*heads, "tp", "fp", "fn", "tn", *keys], rows


def _slice_rows(evaluation: Evaluation) -> tuple[list[str], list[list]]:
    keys = list(Overlap(0, 0, 0, 0).measures())
    rows = [
        [s.method, s.case, k + 1, *asdict(overlap).values(), *overlap.measures(evaluation.rules.epsilon).values()]
        for s in evaluation.scores
        for k, overlap in s.slices.items()
    ]
    return ["method", "case", "slice", "tp", "fp", "fn", "tn", *keys], rows


def _summary_rows(evaluation: Evaluation, summaries: Sequence[Summary]) -> tuple[list[str], list[list]]:
    units = {metric.key: metric.unit for metric in metrics(evaluation.rules)}
    rows = []
    for s in summaries:
        first = [s.method, s.kind, s.group]
        rows += [[*first, key, units[key], *asdict(x).values()] for key, x in s.statistics.items()]
        blank = [0, *[""] * 9]  # one number for the group as a whole
        volume = {key: value for key, value in s.volume.to_dict().items() if key != "n"}
        rows += [[*first, f"volume_{key}", "mL" if key.endswith("ml") else "", s.volume.n, *_single(value, blank)]
                 for key, value in volume.items()]  # fmt: skip
        if s.calibration is not None:
            pooled = {"ece": s.calibration.ece, "nll": s.calibration.nll, "brier": s.calibration.brier}
            rows += [[*first, f"{key}_pooled", "", s.calibration.n, *_single(x, blank)] for key, x in pooled.items()]
        counts = {key: value for key, value in asdict(s.counts).items() if key != "cases"}
        rows += [[*first, f"cases_{key}", "", s.counts.cases, *_single(value, blank)] for key, value in counts.items()]
    names = ["n", "undefined", "mean", "sd", "median", "q1", "q3", "least", "most", "ci_low", "ci_high"]
    return ["method", "kind", "group", "metric", "unit", *names], rows


def _single(value: float, blank: list) -> list:
    """``undefined, mean ...`` of a number that has no spread: it stands under mean."""
    return [blank[0], value, *blank[2:]]


def write_csv(path: Path, heads: Iterable[str], rows: Iterable[Iterable]) -> None:
    """As :func:`NeuraxisLib.result_text.write_csv`; an infinite distance is ``inf``."""
    result_text.write_csv(path, heads, rows, infinite=True)


def plain(value: Any) -> Any:
    """As :func:`NeuraxisLib.result_text.plain`; an infinite number becomes the word ``inf`` or ``-inf``."""
    return result_text.plain(value, infinite=True)
