"""Curves as a picture for the report: where lines, ticks and words of a plot lie, in the units of an SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.result import CurvePlot

#: Size of a picture and the margins that hold the words of the axes.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640.0, 300.0, 58.0, 12.0, 12.0, 44.0
#: Colours that the colour-blind tell apart (Okabe and Ito), readable on white and on black.
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_TICKS = 6


@dataclass(frozen=True)
class CurveView:
    """A plot ready to be drawn.

    Attributes:
        title, x_title, y_title: words.
        lines: (name, colour, path data) per curve.
        x_ticks, y_ticks: (place in the picture, number in words).
    """

    title: str
    x_title: str
    y_title: str
    lines: tuple[tuple[str, str, str], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def curve_view(plot: CurvePlot) -> CurveView | None:
    """The plot on axes of round numbers, zero included on the vertical one; None if there is nothing to draw."""
    samples = [(np.array(curve.x), np.array(curve.y)) for curve in plot.curves]
    kept = [np.isfinite(x) & np.isfinite(y) for x, y in samples]
    if not any(mask.any() for mask in kept):
        return None
    x_all = np.concatenate([x[mask] for (x, _), mask in zip(samples, kept)])
    y_all = np.concatenate([y[mask] for (_, y), mask in zip(samples, kept)])
    x_places = _round_places(x_all.min(), x_all.max())
    y_places = _round_places(min(y_all.min(), 0.0), max(y_all.max(), 0.0))
    x_of = _Scale(x_places[0], x_places[-1], LEFT, WIDTH - RIGHT)
    y_of = _Scale(y_places[0], y_places[-1], HEIGHT - BOTTOM, TOP)
    lines = tuple(
        (curve.name, COLORS[number % len(COLORS)], _path(x_of(x), y_of(y), mask))
        for number, (curve, (x, y), mask) in enumerate(zip(plot.curves, samples, kept))
    )
    return CurveView(
        plot.title,
        _axis_title(plot.x_label),
        _axis_title(plot.y_label),
        lines,
        tuple((float(x_of(value)), f"{value:g}") for value in x_places),
        tuple((float(y_of(value)), f"{value:g}") for value in y_places),
    )


@dataclass(frozen=True)
class _Scale:
    """Values low..high onto start..stop."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self.start + (np.asarray(values) - self.low) * (self.stop - self.start) / (self.high - self.low)


def _axis_title(label: tuple[str, str]) -> str:
    name, unit = label
    return f"{name} [{unit}]" if unit else name


def _round_places(low: float, high: float) -> list[float]:
    """A handful of round numbers from at or below ``low`` to at or above ``high``."""
    span = (high - low) or max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= _TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def _path(x: np.ndarray, y: np.ndarray, kept: np.ndarray) -> str:
    """Path data; what was not measured interrupts the line."""
    words, pen_down = [], False
    for place, value, measured in zip(x, y, kept):
        if measured:
            words.append(f"{'L' if pen_down else 'M'}{place:.1f} {value:.1f}")
        pen_down = bool(measured)
    return "".join(words)
