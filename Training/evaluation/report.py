"""The report of a comparison: one HTML page that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.result import Table
from NeuraxisLib.slice_view import css_color
from Training.evaluation import plots, tables
from Training.evaluation.pictures import PREDICTION_RGB, TRUTH_RGB
from Training.evaluation.rules import metrics, nsd_key
from Training.evaluation.summary import Difference, Evaluation, Summary

_TEMPLATE = Path(__file__).parent / "report.html.jinja"
#: Cases whose overlays stand in the report; all are in the folder.
SHOWN_CASES = 24


@dataclass(frozen=True)
class DrawnCase:
    """Pictures of a case as files of the folder.

    Attributes:
        case: name.
        overlay: path of the PNG below the folder.
        animation: path of the GIF below the folder.
        slice_number: slice of the overlay, counted from 1.
    """

    case: str
    overlay: str
    animation: str
    slice_number: int


@dataclass(frozen=True)
class Figure:
    """A plot in the report: title, caption and SVG."""

    title: str
    caption: str
    svg: str


def draw_figures(evaluation: Evaluation, summaries: Sequence[Summary]) -> dict[str, Figure]:
    """File stem -> plot; reliability only where a method gave probabilities."""
    found = {
        "box": Figure(
            "Scores of the cases",
            "Box: quartiles, median; whiskers: up to 1.5 interquartile ranges; dots: cases; triangles: infinite.",
            plots.box_plot(evaluation),
        ),
        "bland_altman": Figure(
            "Bland-Altman",
            "Bias (solid) and limits of agreement (dashed, bias ∓ 1.96 SD). Crosses: failed cases, taken as 0 mL.",
            plots.bland_altman(evaluation, summaries),
        ),
        "correlation": Figure(
            "Measured against true volume",
            "Grey: identity; coloured: least-squares line.",
            plots.correlation(evaluation, summaries),
        ),
        "reliability": Figure(
            "Reliability",
            "Share of lesion among the voxels of each tenth of probability, all cases together; gap to the diagonal.",
            plots.reliability(evaluation, summaries),
        ),
    }
    return {stem: figure for stem, figure in found.items() if figure.svg}


def report_tables(evaluation: Evaluation, summaries: Sequence[Summary], found: Sequence[Difference]) -> list[Table]:
    """The tables of the report, the layouts of the papers aside."""
    rules = evaluation.rules
    shown = ["dice", f"hd95_{rules.unit}", nsd_key(rules.tolerances_mm[-1]), "rvd", "volume_error_abs_ml"]
    made = [
        tables.counts_table(summaries),
        tables.metric_table(summaries, rules, tables.main_keys(rules), "Overlap, surface and time: mean [95 % CI]"),
        tables.volume_table(evaluation, summaries),
    ]
    if any(s.calibration is not None for s in summaries):
        keys, title = tables.calibration_keys(), "Probabilities and uncertainty, mean of cases [95 % CI]"
        made += [tables.metric_table(summaries, rules, keys, title), tables.pooled_table(summaries)]
    if found:
        made.append(tables.difference_table(found, rules))
    if any(s.kind == "group" for s in summaries):
        made.append(tables.group_table(summaries, rules, "group", shown, "By group: mean±SD"))
    made.append(tables.group_table(summaries, rules, "band", shown, "By volume of the truth: mean±SD"))
    return made


def render_report(
    evaluation: Evaluation,
    report: Sequence[Table],
    layouts: Sequence[Table],
    figures: Sequence[Figure],
    drawn: Sequence[DrawnCase],
    folder: Path,
) -> str:
    """The page as text. Nothing in it is fetched from elsewhere; every word is escaped.

    Args:
        evaluation: what was judged.
        report: from :func:`report_tables`.
        layouts: the papers' layouts.
        figures: from :func:`draw_figures`.
        drawn: cases with pictures; the worst :data:`SHOWN_CASES` are shown, worst first.
        folder: where the pictures lie.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kept"] = _kept_together
    shown = sorted(drawn, key=lambda d: _worst_dice(evaluation, d.case))[:SHOWN_CASES]
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        evaluation=evaluation,
        rules=evaluation.rules,
        best=_best_cells(evaluation, report[1]),
        tables=report,
        layouts=layouts,
        figures=[(f.title, f.caption, _address("image/svg+xml", f.svg.encode())) for f in figures],
        cases=[
            (d, _address("image/png", (folder / d.overlay).read_bytes()), _lines(evaluation, d.case)) for d in shown
        ],
        drawn=len(drawn),
        fact_text=_fact_text,
        failures=[(s.case, s.method, s.error) for s in evaluation.scores if s.failed],
        truth_colour=css_color(TRUTH_RGB),
        prediction_colour=css_color(PREDICTION_RGB),
        notice=RESEARCH_USE_NOTICE,
        version=__version__,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _kept_together(value: object) -> str:
    """A cell whose number and interval are not torn apart; ``(n = ...)`` may go to the next line."""
    return (
        str(value)
        .replace(" [", "\N{NO-BREAK SPACE}[")
        .replace(", ", ",\N{NO-BREAK SPACE}")
        .replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    )


def _fact_text(value: object) -> str:
    """A fact of a method in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} = {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _png(path: Path) -> str:
    return _address("image/png", path.read_bytes())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _worst_dice(evaluation: Evaluation, case: str) -> float:
    return min((s.values["dice"] for s in evaluation.scores if s.case == case), default=1.0)


def _lines(evaluation: Evaluation, case: str) -> list[str]:
    """One line per method under the overlay of a case."""
    hd95 = f"hd95_{evaluation.rules.unit}"
    lines = []
    for s in (s for s in evaluation.scores if s.case == case):
        if s.failed:
            lines.append(f"{s.method}: failed")
            continue
        distance = tables.number(s.values[hd95], 1)
        volumes = f"{s.predicted_ml:.1f} of {s.truth_ml:.1f} mL"
        lines.append(
            f"{s.method}: Dice {tables.number(s.values['dice'])}, HD95 {distance} {evaluation.rules.unit}, {volumes}"
        )
    return lines


def _best_cells(evaluation: Evaluation, table: Table) -> set[tuple[int, int]]:
    """(row, column) of the best mean of each metric in the main table, where there are methods to compare."""
    if len(table.rows) < 2:
        return set()
    better = {metric.head: metric.better for metric in metrics(evaluation.rules)}
    cells = set()
    for column, (head, _) in enumerate(table.columns[1:], start=1):
        means = [_leading_number(row[column]) for row in table.rows]
        signed = [mean if better.get(head) == "high" else -mean for mean in means]
        finite = [value for value in signed if np.isfinite(value)]
        if len(set(finite)) > 1:  # where all are alike, none is best
            cells |= {(row, column) for row, value in enumerate(signed) if value == max(finite)}
    return cells


def _leading_number(text: str) -> float:
    word = str(text).split(" ")[0].replace("∞", "inf")
    try:
        return float(word)
    except ValueError:
        return float("nan")
