"""The figures of a comparison as SVG: box, Bland-Altman, correlation and reliability plots."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from Training.evaluation.agreement import VolumeAgreement
from Training.evaluation.rules import Metric, nsd_key
from Training.evaluation.summary import Evaluation, Summary
from Training.evaluation.tables import chosen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours of methods, told apart by most colour-blind eyes (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
#: Bars of the reliability diagram and their gap to the diagonal, as SLEX-Net draws them.
_OUTPUTS, _GAP = "#3a66c4", "#5cb85c"
_PANEL_INCH = 3.1


def box_plot(evaluation: Evaluation) -> str:
    """Dice, HD95, NSD and volume error of every method: box of the quartiles, whiskers 1.5 IQR, every case a dot.

    Infinite distances are drawn at the upper edge as triangles, and undefined ones are missing.
    """
    rules = evaluation.rules
    keys = ["dice", f"hd95_{rules.unit}", nsd_key(rules.tolerances_mm[-1]), "volume_error_ml"]
    wanted = chosen(rules, keys)
    names = list(evaluation.methods)
    figure = _figure(2, 2, _PANEL_INCH * 1.45, max(2.4, 0.42 * len(names) + 1.3))
    for axes, metric in zip(figure.axes, wanted):
        values = [[s.values[metric.key] for s in evaluation.of(name) if s.counted] for name in names]
        _boxes(axes, values, metric)
        axes.set_yticks(range(1, len(names) + 1), names if axes.get_subplotspec().is_first_col() else [])
        axes.invert_yaxis()
    return _svg(figure)


def bland_altman(evaluation: Evaluation, summaries: Sequence[Summary]) -> str:
    """Difference of volumes against their mean, with bias and limits of agreement, one panel per method, one scale."""
    figure, panels = _method_panels(evaluation)
    lines = {name: _agreement_lines(_summary(summaries, name).volume) for name in evaluation.methods}
    counted = [s for s in evaluation.scores if s.counted]
    heights = [s.predicted_ml - s.truth_ml for s in counted] + [height for row in lines.values() for height in row]
    most = 1.12 * max([1.0, *(abs(height) for height in heights if math.isfinite(height))])
    right = 1.05 * max([1.0, *((s.predicted_ml + s.truth_ml) / 2 for s in counted)])
    for axes, name, colour in panels:
        scores = [s for s in counted if s.method == name]
        x = np.array([(s.predicted_ml + s.truth_ml) / 2 for s in scores])
        y = np.array([s.predicted_ml - s.truth_ml for s in scores])
        axes.axhline(0, color="#999", linewidth=0.7)
        _dots(axes, x, y, scores, colour)
        for height, style in zip(lines[name], ("-", "--", "--")):
            if math.isfinite(height):
                axes.axhline(height, color=colour, linewidth=1.1, linestyle=style)
        bias, low, high = lines[name]
        if math.isfinite(low):
            axes.set_title(f"{name}\nbias {bias:+.2f}, limits {low:+.2f} to {high:+.2f} mL", fontsize=8)
        axes.set(xlim=(-0.03 * right, right), ylim=(-most, most))
        axes.set(xlabel="Mean of both [mL]", ylabel="Measured − true [mL]")
    return _svg(figure)


def correlation(evaluation: Evaluation, summaries: Sequence[Summary]) -> str:
    """Measured against true volume with the identity and the fitted line, one panel per method."""
    figure, panels = _method_panels(evaluation)
    volumes = [v for s in evaluation.scores if s.counted for v in (s.predicted_ml, s.truth_ml)]
    most = 1.05 * max([1.0, *volumes])
    for axes, name, colour in panels:
        scores = [s for s in evaluation.of(name) if s.counted]
        x, y = (np.array([getattr(s, field) for s in scores]) for field in ("truth_ml", "predicted_ml"))
        axes.plot([0, most], [0, most], color="#999", linewidth=0.7)
        _dots(axes, x, y, scores, colour)
        r2 = _summary(summaries, name).volume.r2
        if math.isfinite(r2):
            slope, start = np.polyfit(x, y, 1)
            axes.plot([0, most], [start, start + slope * most], color=colour, linewidth=1.1)
            axes.set_title(f"{name}\nR² {r2:.3f}, y = {slope:.2f} x {start:+.1f}", fontsize=8)
        axes.set(
            xlim=(-0.03 * most, most),
            ylim=(-0.03 * most, most),
            xlabel="True [mL]",
            ylabel="Measured [mL]",
            aspect="equal",
        )
    return _svg(figure)


def reliability(evaluation: Evaluation, summaries: Sequence[Summary]) -> str:
    """Reliability diagrams of the methods that gave probabilities: share of lesion in each tenth of probability.

    All voxels of all cases together. Empty text if no method gave probabilities.
    """
    pooled = {s.method: s.calibration for s in summaries if s.kind == "all" and s.calibration is not None}
    if not pooled:
        return ""
    figure, panels = _method_panels(evaluation, list(pooled))
    for axes, name, _ in panels:
        sums = pooled[name]
        confidence, share, counts = sums.reliability()
        left = np.arange(len(counts)) / len(counts)
        width, filled = 1 / len(counts), counts > 0
        bars = {"width": width, "align": "edge", "edgecolor": "white", "linewidth": 0.6}
        axes.bar(left[filled], share[filled], color=_OUTPUTS, label="Outputs", **bars)
        gap = confidence - share
        axes.bar(
            left[filled], gap[filled], bottom=share[filled], color=_GAP, alpha=0.55, hatch="///", label="Gap", **bars
        )
        axes.plot([0, 1], [0, 1], color="#666", linewidth=0.8, linestyle="--")
        axes.plot(confidence[filled], share[filled], color="#222", marker="o", markersize=2.5, linewidth=0.9)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Probability", ylabel="Share of lesion", aspect="equal")
        axes.set_title(f"{name}\nECE {sums.ece:.4f}", fontsize=8)
        axes.legend(fontsize=6.5, loc="upper left", frameon=False)
    return _svg(figure)


def _agreement_lines(agreement: VolumeAgreement) -> tuple[float, float, float]:
    return agreement.bias_ml, agreement.low_limit_ml, agreement.high_limit_ml


# -- parts ----------------------------------------------------------------------------------------------------


def _figure(rows: int, columns: int, width: float, height: float) -> Figure:
    """An empty figure with its axes, without touching matplotlib's global state or any display."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasSVG(figure)
    for axes in np.ravel(figure.subplots(rows, columns, squeeze=False)):
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure


def _method_panels(evaluation: Evaluation, names: list[str] | None = None) -> tuple[Figure, list]:
    """A figure with one panel per method, at most four in a row, and (axes, name, colour) of each."""
    every = list(evaluation.methods)
    names = every if names is None else names
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = _figure(rows, columns, _PANEL_INCH, _PANEL_INCH)
    panels = []
    for axes, name in zip(figure.axes, names):
        axes.set_title(name, fontsize=8)
        panels.append((axes, name, COLOURS[every.index(name) % len(COLOURS)]))
    for axes in figure.axes[len(names) :]:
        axes.set_visible(False)
    return figure, panels


def _boxes(axes: Axes, values: list[list[float]], metric: Metric) -> None:
    """Horizontal boxes of several methods with the cases as dots."""
    finite = [[v for v in row if math.isfinite(v)] for row in values]
    axes.boxplot(finite, orientation="horizontal", widths=0.6, showfliers=False, medianprops={"color": "#222"})
    limits = [v for row in finite for v in row] or [0.0, 1.0]
    edge = max(limits) + 0.06 * (max(limits) - min(limits) or 1)
    for place, (row, shown) in enumerate(zip(values, finite), start=1):
        colour = COLOURS[(place - 1) % len(COLOURS)]
        offsets = np.random.default_rng(place).uniform(-0.18, 0.18, len(row))
        heights = [place + o for v, o in zip(row, offsets) if math.isfinite(v)]
        axes.plot(shown, heights, "o", markersize=4, alpha=0.7, color=colour, markeredgewidth=0, zorder=3)
        endless = sum(math.isinf(v) for v in row)
        if endless:
            axes.plot(np.full(endless, edge), place + offsets[:endless], ">", markersize=4, color=colour)
    axes.set_xlabel(f"{metric.head} [{metric.unit}]" if metric.unit else metric.head)
    if metric.key in ("dice", "iou") or metric.key.startswith("nsd"):
        axes.set_xlim(-0.02, 1.02)
    elif metric.better == "zero":
        axes.axvline(0, color="#999", linewidth=0.7)


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, scores: Sequence, colour: str) -> None:
    """Cases as dots; failed ones as crosses."""
    failed = np.array([s.failed for s in scores], bool)
    axes.plot(x[~failed], y[~failed], "o", markersize=3.5, alpha=0.7, color=colour, markeredgewidth=0)
    axes.plot(x[failed], y[failed], "x", markersize=5, color=colour)


def _summary(summaries: Sequence[Summary], method: str) -> Summary:
    return next(s for s in summaries if s.kind == "all" and s.method == method)


def _svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same numbers."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "neuraxis", "svg.fonttype": "path"}), io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return file.getvalue()
