"""Tables: the comparison for readers, and one each in the layout of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from NeuraxisLib.result import Table
from Training.evaluation.agreement import VolumeAgreement
from Training.evaluation.rules import Metric, Rules, metrics, nsd_key
from Training.evaluation.summary import Difference, Evaluation, Statistic, Summary

_DASH = "–"


def number(value: float, digits: int = 3) -> str:
    """A number with fixed decimals; a dash where undefined, an infinity sign where infinite."""
    if value is None or math.isnan(value):
        return _DASH
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def mean_sd(statistic: Statistic, digits: int = 3, factor: float = 1.0) -> str:
    """``0.861±0.139``."""
    if not statistic.n:
        return _DASH
    return f"{number(factor * statistic.mean, digits)}±{number(factor * statistic.sd, digits)}"


def mean_interval(statistic: Statistic, digits: int = 2, factor: float = 1.0) -> str:
    """``63.70 [55.82, 71.10]``."""
    if not statistic.n:
        return _DASH
    low, high = (number(factor * end, digits) for end in (statistic.low, statistic.high))
    return f"{number(factor * statistic.mean, digits)} [{low}, {high}]"


def chosen(rules: Rules, keys: Sequence[str]) -> list[Metric]:
    """The metrics of some keys, in the order of the keys."""
    known = {metric.key: metric for metric in metrics(rules)}
    return [known[key] for key in keys]


# -- the report's own tables ----------------------------------------------------------------------------------


def main_keys(rules: Rules) -> list[str]:
    """The metrics of the first table."""
    return [
        "dice",
        "iou",
        f"hd95_{rules.unit}",
        nsd_key(rules.tolerances_mm[-1]),
        "sensitivity",
        "precision",
        "seconds",
    ]


def calibration_keys() -> list[str]:
    """The metrics of the table of probabilities and uncertainty."""
    return ["ece", "nll", "brier", "uncertainty_correlation", "uncertainty_auc", "interval_covers"]


def counts_table(summaries: Sequence[Summary]) -> Table:
    """How many cases failed, were missed or were false alarms, per method."""
    columns = ("Method", "Cases", "Failed", "Misses", "False alarms", "Rightly empty", "Left out of means")
    rows = []
    for s in _all(summaries):
        c = s.counts
        rows.append((s.method, c.cases, c.failed, c.misses, c.false_alarms, c.both_empty, c.left_out))
    return Table("Cases", tuple((head, "") for head in columns), tuple(rows))


def metric_table(summaries: Sequence[Summary], rules: Rules, keys: Sequence[str], title: str) -> Table:
    """Methods down, metrics across: mean [95 % interval], with the number of cases where some are undefined."""
    wanted = chosen(rules, keys)
    rows = []
    for s in _all(summaries):
        cells = []
        for metric in wanted:
            found = s.statistics[metric.key]
            cell = mean_interval(found, metric.digits)
            cells.append(f"{cell} (n = {found.n})" if found.n and found.undefined else cell)
        rows.append((s.method, *cells))
    return Table(title, (("Method", ""), *((m.head, m.unit) for m in wanted)), tuple(rows))


def group_table(summaries: Sequence[Summary], rules: Rules, kind: str, keys: Sequence[str], title: str) -> Table:
    """Groups and methods down, metrics across: mean±SD."""
    wanted = chosen(rules, keys)
    rows = tuple(
        (s.group or "(none)", s.method, s.counts.cases, s.counts.misses,
         *(mean_sd(s.statistics[m.key], m.digits) for m in wanted))
        for s in summaries
        if s.kind == kind
    )  # fmt: skip
    heads = (("Group", ""), ("Method", ""), ("Cases", ""), ("Misses", ""), *((m.head, m.unit) for m in wanted))
    return Table(title, heads, rows)


def volume_table(evaluation: Evaluation, summaries: Sequence[Summary]) -> Table:
    """Agreement of volumes, per method, and of ABC/2 of the outlined truth (Coniglobus) beside them."""
    heads = (
        ("Method", ""), ("Cases", ""), ("Bias", "mL"), ("SD", "mL"), ("Limits of agreement", "mL"), ("RMSE", "mL"),
        ("MAE", "mL"), ("R² of a line", ""), ("R² of identity", ""),
    )  # fmt: skip
    judged = {s.case: s for s in evaluation.scores if not math.isnan(s.abc2_ml)}
    by_hand = VolumeAgreement.of([s.abc2_ml for s in judged.values()], [s.truth_ml for s in judged.values()])
    rows = []
    for name, v in (*((s.method, s.volume) for s in _all(summaries)), ("ABC/2 of the truth", by_hand)):
        limits = f"{number(v.low_limit_ml, 2)} to {number(v.high_limit_ml, 2)}"
        sizes = (number(v.rmse_ml, 2), number(v.mae_ml, 2), number(v.r2, 4), number(v.r2_identity, 4))
        rows.append((name, v.n, number(v.bias_ml, 2), number(v.sd_ml, 2), limits, *sizes))
    return Table("Volume against the truth (measured minus true)", heads, tuple(rows))


def pooled_table(summaries: Sequence[Summary]) -> Table:
    """Calibration over the voxels of all cases together, per method that gave probabilities."""
    rows = tuple(
        (
            s.method,
            s.calibration.n,
            *(number(x, 4) for x in (s.calibration.ece, s.calibration.nll, s.calibration.brier)),
        )
        for s in _all(summaries)
        if s.calibration is not None
    )
    heads = ("Method", "Voxels", "ECE", "NLL", "Brier")
    return Table("Calibration over all voxels together", tuple((head, "") for head in heads), rows)


def difference_table(found: Sequence[Difference], rules: Rules) -> Table:
    """Every method against the first, case by case."""
    heads = ("Method minus reference", "Metric", "Cases", "Mean difference [95 % CI]", "Wilcoxon p")
    rows = []
    for d in found:
        metric = chosen(rules, [d.metric])[0]
        ends = ", ".join(number(x, metric.digits) for x in (d.low, d.high))
        cell = f"{number(d.mean, metric.digits)} [{ends}]" if d.n else _DASH
        rows.append((f"{d.method} − {d.reference}", metric.head, d.n, cell, _p_text(d.p)))
    return Table("Method against method", tuple((head, "") for head in heads), tuple(rows))


def _p_text(p: float) -> str:
    return _DASH if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


# -- layouts of the papers ------------------------------------------------------------------------------------


def drunet_table(evaluation: Evaluation, summaries: Sequence[Summary]) -> Table:
    """As DR-UNet's table and volume panel: set, method, six overlap measures as mean±SD, then volumes and time."""
    keys = ("sensitivity", "specificity", "precision", "dice", "iou", "voe")
    heads = (
        *((head, "") for head in ("Set", "Method", "Sens", "Spec", "Prec", "Dice", "Jaccard", "VOE")),
        ("Bias", "mL"), ("RMSE", "mL"), ("SD", "mL"), ("MAE", "mL"), ("R²", ""), ("Time", "s/scan"),
    )  # fmt: skip
    rows = []
    for s in (s for s in summaries if s.kind in ("all", "group")):
        v = s.volume
        volumes = [number(x, 2) for x in (v.bias_ml, v.rmse_ml, v.sd_ml, v.mae_ml)]
        cells = [mean_sd(s.statistics[key]) for key in keys]
        seconds = number(s.statistics["seconds"].mean, 2)
        rows.append((s.group or "all", s.method, *cells, *volumes, number(v.r2, 4), seconds))
    unit = "lesion slices" if evaluation.rules.by_slice else "cases"
    return Table(f"Layout of DR-UNet: mean±SD over {unit}", heads, tuple(rows))


def hemseg_table(evaluation: Evaluation, summaries: Sequence[Summary]) -> Table:
    """As HemSeg's table 1: model, Dice %, IoU %, HD95, each mean [95 % CI]."""
    hd95 = f"hd95_{evaluation.rules.unit}"
    heads = (("Model", ""), ("Dice", "%"), ("IoU", "%"), ("HD95", evaluation.rules.unit))
    rows = tuple(
        (s.method, mean_interval(s.statistics["dice"], 2, 100), mean_interval(s.statistics["iou"], 2, 100),
         mean_interval(s.statistics[hd95], 2))
        for s in _all(summaries)
    )  # fmt: skip
    return Table("Layout of HemSeg: mean [95 % CI]", heads, rows)


def slex_table(evaluation: Evaluation, summaries: Sequence[Summary]) -> Table:
    """As SLEX-Net's evaluation prints: Dice, HD, |rAVD|, ECE (mean of cases, and pooled), NLL, Brier, time."""
    hd = f"hd_{evaluation.rules.unit}"
    heads = (
        ("Method", ""), ("Dice", ""), ("HD", evaluation.rules.unit), ("|rAVD|", ""), ("ECE", ""), ("ECE pooled", ""),
        ("NLL", ""), ("Brier", ""), ("Time", "s"),
    )  # fmt: skip
    rows = []
    for s in _all(summaries):
        pooled = number(s.calibration.ece, 4) if s.calibration is not None else _DASH
        x = s.statistics
        rows.append((
            s.method, mean_sd(x["dice"]), mean_sd(x[hd], 2), mean_sd(x["rvd_abs"]), mean_sd(x["ece"], 4), pooled,
            mean_sd(x["nll"], 4), mean_sd(x["brier"], 4), number(x["seconds"].mean, 2),
        ))  # fmt: skip
    return Table("Layout of SLEX-Net: mean±SD", heads, tuple(rows))


def stavanger_table(evaluation: Evaluation, summaries: Sequence[Summary]) -> Table:
    """As the Stavanger group's tables (stroke and disc specification 1.10): per group, Dice of all voxels together and
    of patients, volumes and Hausdorff distances; these in three dimensions, which theirs were not."""
    unit = evaluation.rules.unit
    heads = (
        ("Group", ""), ("Method", ""), ("Cases", ""), ("Dice, all voxels together", ""), ("Dice, mean±SD", ""),
        ("Precision, together", ""), ("Recall, together", ""), ("HD", unit), ("HD95", unit),
        ("Volume difference", "mL"), ("|Volume difference|", "mL"),
    )  # fmt: skip
    rows = []
    for s in (s for s in summaries if s.kind in ("all", "group")):
        together, x = s.overlap.measures(), s.statistics
        rows.append((
            s.group or ("all" if s.kind == "all" else "(none)"), s.method, s.counts.cases, number(together["dice"]),
            mean_sd(x["dice"]), number(together["precision"]), number(together["sensitivity"]),
            mean_sd(x[f"hd_{unit}"], 1), mean_sd(x[f"hd95_{unit}"], 1), mean_sd(x["volume_error_ml"], 1),
            mean_sd(x["volume_error_abs_ml"], 1),
        ))  # fmt: skip
    return Table("Layout of the Stavanger group: micro and macro", heads, tuple(rows))


#: File stem of each layout -> the function that makes it.
LAYOUTS: dict[str, Callable[[Evaluation, Sequence[Summary]], Table]] = {
    "table_drunet": drunet_table,
    "table_hemseg": hemseg_table,
    "table_slex": slex_table,
    "table_stavanger": stavanger_table,
}


def as_text(table: Table) -> str:
    """A table for a terminal: columns padded, words left, the rest right."""
    heads = [f"{head} [{unit}]" if unit else head for head, unit in table.columns]
    rows = [[str(cell) for cell in row] for row in table.rows]
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (cell.ljust(w) if at == 0 else cell.rjust(w) for at, (cell, w) in enumerate(zip(cells, widths)))
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([table.title, line(heads), *map(line, rows)])


def _all(summaries: Sequence[Summary]) -> list[Summary]:
    return [s for s in summaries if s.kind == "all"]
