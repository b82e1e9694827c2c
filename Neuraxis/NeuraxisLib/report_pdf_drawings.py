"""The drawings of the PDF report: slices with outlines, curves, the bar of an interval.

They draw what :mod:`slice_view` and :mod:`curve_view` prepared for the HTML page: same pictures, same path data.
reportlab counts upward, the views count downward.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

from reportlab.lib.colors import HexColor, black, white
from reportlab.lib.utils import ImageReader
from reportlab.platypus import Flowable

from NeuraxisLib.curve_view import CurveView
from NeuraxisLib.report_pdf import ACCENT, BOLD, FONT, INK, LINE, SOFT, shown
from NeuraxisLib.slice_view import SliceView

_STEP = re.compile(r"([MLHV])(-?[\d.]+)(?: (-?[\d.]+))?")


def polylines(path: str) -> Iterator[list[tuple[float, float]]]:
    """The lines of path data made of M, L, H and V (as the views write it), each as its corners."""
    corners: list[tuple[float, float]] = []
    for kind, first, second in _STEP.findall(path):
        if kind == "M":
            if len(corners) > 1:
                yield corners
            corners = [(float(first), float(second))]
        elif kind == "L":
            corners.append((float(first), float(second)))
        elif kind == "H":
            corners.append((float(first), corners[-1][1]))
        else:
            corners.append((corners[-1][0], float(first)))
    if len(corners) > 1:
        yield corners


class SlicePicture(Flowable):
    """A slice: the grey picture with outlines, or with the map over it; letters and a scale bar.

    Args:
        view: of the slice.
        width: in points.
        with_map: the map instead of the outlines.
    """

    def __init__(self, view: SliceView, width: float, with_map: bool):
        super().__init__()
        self._view, self._with_map = view, with_map
        self.width, self.height = width, width * view.height_mm / view.width_mm

    def draw(self) -> None:
        """Called by reportlab, with the origin at the lower left corner."""
        canvas, view = self.canv, self._view
        canvas.setFillColor(black)
        canvas.rect(0, 0, self.width, self.height, stroke=0, fill=1)
        canvas.drawImage(_picture(view.image), 0, 0, self.width, self.height)
        if self._with_map and view.overlay:
            canvas.drawImage(_picture(view.overlay), 0, 0, self.width, self.height, mask="auto")
        if not self._with_map:
            for _, colour, path in view.outlines:
                self._outline(path, black, 1.4)
                self._outline(path, HexColor(colour), 0.7)
        self._letters()

    def _outline(self, path: str, colour: Any, line_width: float) -> None:
        scale = self.width / self._view.width_mm
        across, down = (scale * side for side in self._view.pixel_mm)
        _stroke(self.canv, path, across, down, self.height, colour, line_width)

    def _letters(self) -> None:
        canvas, view = self.canv, self._view
        em = self.width / 22
        canvas.setFillColor(white)
        canvas.setFont(BOLD, em)
        canvas.drawString(em / 2, self.height / 2, view.letters[0])
        canvas.drawRightString(self.width - em / 2, self.height / 2, view.letters[1])
        canvas.drawCentredString(self.width / 2, self.height - 1.1 * em, view.letters[2])
        canvas.setStrokeColor(white)
        canvas.setLineWidth(em / 6)
        canvas.line(em / 2, 0.6 * em, em / 2 + view.scale_bar_mm * self.width / view.width_mm, 0.6 * em)
        canvas.setFont(BOLD, 0.75 * em)
        canvas.drawString(em / 2, em, f"{view.scale_bar_mm} mm")


class CurvePicture(Flowable):
    """Curves on their axes, with a legend below."""

    def __init__(self, plot: CurveView, width: float):
        super().__init__()
        self._plot, self._scale = plot, width / plot.width
        self.width, self.height = width, plot.height * self._scale + 14

    def draw(self) -> None:
        """Called by reportlab, with the origin at the lower left corner."""
        canvas, plot, scale, top = self.canv, self._plot, self._scale, self.height
        canvas.setFont(FONT, 6.5)
        canvas.setFillColor(HexColor(SOFT))
        canvas.setStrokeColor(HexColor(LINE))
        canvas.setLineWidth(0.5)
        for x, words in plot.x_ticks:
            canvas.line(x * scale, top - plot.top * scale, x * scale, top - plot.bottom * scale)
            canvas.drawCentredString(x * scale, top - (plot.bottom + 16) * scale, words)
        for y, words in plot.y_ticks:
            canvas.line(plot.left * scale, top - y * scale, plot.right * scale, top - y * scale)
            canvas.drawRightString((plot.left - 6) * scale, top - (y + 4) * scale, words)
        middle = (plot.left + plot.right) / 2 * scale
        canvas.drawCentredString(middle, top - (plot.height - 8) * scale, shown(plot.x_title))
        canvas.saveState()
        canvas.translate(14 * scale, top - (plot.top + plot.bottom) / 2 * scale)
        canvas.rotate(90)
        canvas.drawCentredString(0, 0, shown(plot.y_title))
        canvas.restoreState()
        at = plot.left * scale
        for name, colour, path in plot.lines:
            _stroke(canvas, path, scale, scale, top, HexColor(colour), 1.2)
            canvas.setFillColor(HexColor(colour))
            canvas.drawString(at, 2, shown(name))
            at += canvas.stringWidth(shown(name), FONT, 6.5) + 12


class IntervalBar(Flowable):
    """Low, value and high on a line from 0 to a round end; ``scale`` holds percents, as the report's content."""

    def __init__(self, scale: dict[str, Any], unit: str, width: float):
        super().__init__()
        self._scale, self._unit = scale, unit
        self.width, self.height = width, 24.0

    def draw(self) -> None:
        """Called by reportlab, with the origin at the lower left corner."""
        canvas, one = self.canv, self.width / 100
        low, value, high = (float(self._scale[name]) for name in ("low", "value", "high"))
        canvas.setFillColor(HexColor(LINE))
        canvas.roundRect(0, 12, self.width, 7, 3.5, stroke=0, fill=1)
        canvas.setFillColor(HexColor(ACCENT))
        canvas.roundRect(low * one, 12, max((high - low) * one, 1), 7, 2, stroke=0, fill=1)
        canvas.setFillColor(HexColor(INK))
        canvas.rect(value * one - 1, 10, 2, 11, stroke=0, fill=1)
        canvas.setFont(FONT, 6.5)
        canvas.setFillColor(HexColor(SOFT))
        canvas.drawString(0, 2, "0")
        canvas.drawRightString(self.width, 2, shown(f"{self._scale['end']} {self._unit}"))


def _picture(address: str) -> ImageReader:
    """A PNG data address as reportlab reads it."""
    return ImageReader(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def _stroke(canvas: Any, path: str, across: float, down: float, top: float, colour: Any, line_width: float) -> None:
    """Draw path data; ``across`` and ``down`` are points per unit, ``top`` is where y = 0 lies."""
    canvas.setStrokeColor(colour)
    canvas.setLineWidth(line_width)
    canvas.setLineCap(1)
    drawn = canvas.beginPath()
    for corners in polylines(path):
        drawn.moveTo(corners[0][0] * across, top - corners[0][1] * down)
        for x, y in corners[1:]:
            drawn.lineTo(x * across, top - y * down)
    canvas.drawPath(drawn, stroke=1, fill=0)
