"""The report of a Result as PDF: the content and the look of the HTML page on A4, for archives that take documents.

Made with reportlab alone, without a browser or a display. Fonts are embedded; nothing in it names the patient.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from NeuraxisLib.errors import DependencyError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.report import interval_text, number_text, report_content
from NeuraxisLib.result import Measurement, Result, Table

#: The colours of the page in print (Resources/report.html.jinja).
INK, SOFT, LINE, ACCENT, WARN = "#17222d", "#566472", "#dbe1e7", "#0b5e8a", "#fff6e0"
WARN_LINE = "#e2b04a"
MARGIN_MM = 12.0
FONT, BOLD = "Vera", "VeraBd"
#: From so many columns on a table is set smaller.
_WIDE = 7


def render_pdf(result: Result, table: LabelTable) -> bytes:
    """The report as a PDF file.

    Args:
        result: a finished result whose ``source`` holds the image.
        table: the task's label table (names and colours).

    Raises:
        DependencyError: the package reportlab is not installed.
    """
    try:
        from reportlab.lib.pagesizes import A4
        from reportlab.lib.units import mm
        from reportlab.platypus import SimpleDocTemplate
    except ImportError as error:
        raise DependencyError("Writing the report as PDF needs the Python package reportlab; install it.") from error
    content = report_content(result, table)
    file = io.BytesIO()
    _embed_fonts()
    document = SimpleDocTemplate(
        file, pagesize=A4, title=content["title"], author=f"Neuraxis {content['version']}",
        leftMargin=MARGIN_MM * mm, rightMargin=MARGIN_MM * mm, topMargin=MARGIN_MM * mm, bottomMargin=16 * mm,
        initialFontName=FONT,
    )  # fmt: skip
    page = _Page(document.width)

    def foot(canvas: Any, _: Any) -> None:
        canvas.setFont(FONT, 7)
        canvas.setFillColor(SOFT)
        canvas.drawString(document.leftMargin, 9 * mm, shown(content["notice"]))
        canvas.drawRightString(document.leftMargin + document.width, 9 * mm, str(canvas.getPageNumber()))

    document.build(page.story(content), onFirstPage=foot, onLaterPages=foot)
    return file.getvalue()


def _embed_fonts() -> None:
    """Make the fonts known that reportlab brings along; their used signs become part of the file."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    for font in (FONT, BOLD):
        pdfmetrics.registerFont(TTFont(font, f"{font}.ttf"))


def shown(text: str) -> str:
    """The text with what the embedded font has no sign for replaced by a question mark."""
    from reportlab.pdfbase import pdfmetrics

    known = pdfmetrics.getFont(FONT).face.charToGlyph
    return "".join(
        sign if ord(sign) in known else " " if sign.isspace() else "?" for sign in text.replace("\N{MINUS SIGN}", "-")
    )


class _Page:
    """Puts the parts of a report below each other; ``width`` of the column in points."""

    def __init__(self, width: float):
        from reportlab.lib.styles import ParagraphStyle

        self.width = width
        plain = ParagraphStyle("plain", fontName=FONT, fontSize=8.5, leading=11.5, textColor=INK)
        self._styles = {
            "plain": plain,
            "title": ParagraphStyle("title", plain, fontName=BOLD, fontSize=15, leading=19),
            "head": ParagraphStyle("head", plain, fontName=BOLD, fontSize=11, leading=14, spaceBefore=9, spaceAfter=4),
            "bold": ParagraphStyle("bold", plain, fontName=BOLD),
            "soft": ParagraphStyle("soft", plain, fontSize=7.5, leading=10, textColor=SOFT),
            "small": ParagraphStyle("small", plain, fontSize=6.5, leading=8.5),
            "smallsoft": ParagraphStyle("smallsoft", plain, fontSize=6.5, leading=8.5, textColor=SOFT),
            "value": ParagraphStyle("value", plain, fontName=BOLD, fontSize=26, leading=31),
        }

    def text(self, words: str, style: str = "plain") -> Any:
        """A paragraph; nothing in the words is taken for markup."""
        from reportlab.platypus import Paragraph

        return Paragraph(escape(shown(words)), self._styles[style])

    def story(self, content: dict[str, Any]) -> list[Any]:
        """All parts in the order of the HTML page."""
        made = f"Neuraxis {content['version']} · {content['date']}"
        parts = [self.text(content["title"], "title"), self.text(made, "soft"), self.text(content["notice"], "bold")]
        if content["warnings"]:
            parts += self._warnings(content["warnings"])
        if content["headline"] is not None:
            parts += self._headline(content)
        if content["figures"]:
            parts += self._figures(content)
        if content["measurements"]:
            parts += self._measurements(content)
        for plot in content["plots"]:
            parts += self._plot(plot)
        for table in content["tables"]:
            parts += self._table(table)
        return parts + self._facts(content["image"] + content["provenance"])

    def _warnings(self, sentences: Sequence[str]) -> list[Any]:
        lines = [self.text("Read this first", "bold"), *(self.text(f"• {sentence}") for sentence in sentences)]
        return [self._gap(), self._grid([[line] for line in lines], [self.width], box=(WARN, WARN_LINE))]

    def _headline(self, content: dict[str, Any]) -> list[Any]:
        from NeuraxisLib.report_pdf_drawings import IntervalBar

        measure = content["headline"]
        several = f" · {measure.segment}" if measure.segment and len(content["legend"]) > 1 else ""
        left = [self.text(measure.name + several, "soft"),
                self.text(f"{number_text(measure.value, measure.unit)} {measure.unit}", "value")]  # fmt: skip
        right: list[Any] = []
        if measure.interval is not None:
            right.append(self.text(f"{content['coverage']} interval {interval_text(measure)} {measure.unit}"))
            if content["scale"]:
                right.append(IntervalBar(content["scale"], measure.unit, self.width * 0.5))
        return [self._gap(), self._grid([[left, right]], [self.width * 0.45, self.width * 0.55])]

    def _figures(self, content: dict[str, Any]) -> list[Any]:
        from NeuraxisLib.report_pdf_drawings import SlicePicture

        overlay, cells = content["overlay"], []
        width = self.width / 2 - 6
        for figure in content["figures"]:
            side = width / 2 - 1 if overlay else width
            pictures = [SlicePicture(figure.view, side, with_map=False)]
            if overlay:
                pictures.append(SlicePicture(figure.view, side, with_map=True))
            words = f"{', '.join(figure.reasons).capitalize()} · {figure.position}"
            cells.append(
                [self._grid([pictures], [side + 1] * len(pictures), padding=0), self._gap(2), self.text(words, "soft")]
            )
        rows = [[*cells[index : index + 2], ""][:2] for index in range(0, len(cells), 2)]
        legend = [f"{name} (outline)" for name, _ in content["legend"]]
        if overlay:
            low, high = (number_text(value) for value in overlay.value_range)
            legend.append(f"{overlay.title}: {low} to {high} {overlay.volume.unit}".rstrip())
        legend.append(f"Window: {content['window']}")
        parts = [self.text("Key slices", "head"), self._legend(content["legend"], "; ".join(legend))]
        if overlay and overlay.note:
            parts.append(self.text(f"{overlay.title}: {overlay.note}", "soft"))
        return [*parts, self._gap(), self._grid(rows, [self.width / 2] * 2, padding=2)]

    def _legend(self, colours: Sequence[tuple[str, str]], words: str) -> Any:
        """The names of what is drawn, each label in its colour."""
        from reportlab.platypus import Paragraph

        text = escape(shown(words))
        for name, colour in colours:
            outline = f"{escape(shown(name))} (outline)"
            text = text.replace(outline, f'<font color="{colour}">{outline}</font>', 1)
        return Paragraph(text, self._styles["soft"])

    def _measurements(self, content: dict[str, Any]) -> list[Any]:
        notes, several = content["notes"], len(content["legend"]) > 1
        rows: list[list[Any]] = [["Measure", "Value", f"{content['coverage']} interval"]]
        rows += [self._measurement(measure, notes, several) for measure in content["measurements"]]
        table = self._grid(
            [[self.text(cell, "plain" if index else "bold") for cell in row] for index, row in enumerate(rows)],
            [self.width * share for share in (0.5, 0.22, 0.28)], lines=True, repeat=1,
        )  # fmt: skip
        numbered = [self.text(f"{number}. {note}", "soft") for number, note in enumerate(notes, start=1)]
        return [self.text("Measurements", "head"), table, *numbered]

    @staticmethod
    def _measurement(measure: Measurement, notes: list[str], several: bool) -> list[str]:
        name = measure.name + (f" · {measure.segment}" if measure.segment and several else "")
        if measure.note:
            name += f" ({notes.index(measure.note) + 1})"
        between = f"{interval_text(measure)} {measure.unit}" if measure.interval else ""
        return [name, f"{number_text(measure.value, measure.unit)} {measure.unit}".strip(), between.strip()]

    def _plot(self, plot: Any) -> list[Any]:
        from reportlab.platypus import KeepTogether

        from NeuraxisLib.report_pdf_drawings import CurvePicture

        return [KeepTogether([self.text(plot.title, "head"), CurvePicture(plot, min(self.width, 430))])]

    def _table(self, table: Table) -> list[Any]:
        wide = len(table.columns) > _WIDE
        plain, head = ("small", "smallsoft") if wide else ("plain", "soft")
        heads = [f"{name} [{unit}]" if unit else name for name, unit in table.columns]
        rows = [[self.text(name, head) for name in heads]]
        for row in table.rows:
            cells = [number_text(value, unit) for value, (_, unit) in zip(row, table.columns)]
            rows.append([self.text(cell, plain) for cell in cells])
        widths = _widths(heads, [list(map(str, row)) for row in table.rows], self.width)
        return [self.text(table.title, "head"), self._grid(rows, widths, lines=True, repeat=1)]

    def _facts(self, facts: Sequence[tuple[str, str]]) -> list[Any]:
        rows = [[self.text(name.capitalize(), "soft"), self.text(words, "small")] for name, words in facts]
        grid = self._grid(rows, [self.width * 0.32, self.width * 0.68], lines=True, padding=1)
        return [self.text("Image and provenance", "head"), grid]

    @staticmethod
    def _gap(points: float = 6) -> Any:
        from reportlab.platypus import Spacer

        return Spacer(1, points)

    @staticmethod
    def _grid(
        rows: list[list[Any]],
        widths: Sequence[float],
        lines: bool = False,
        repeat: int = 0,
        padding: float = 2.5,
        box: tuple[str, str] | None = None,
    ) -> Any:
        """Cells in rows and columns, with a line under every row, or in a box of (fill, edge)."""
        from reportlab.platypus import Table as Grid
        from reportlab.platypus import TableStyle

        style: list[tuple] = [("VALIGN", (0, 0), (-1, -1), "TOP"), ("FONTNAME", (0, 0), (-1, -1), FONT)]
        style += [(f"{side}PADDING", (0, 0), (-1, -1), padding) for side in ("TOP", "BOTTOM", "RIGHT")]
        style.append(("LEFTPADDING", (0, 0), (-1, -1), 6 if box else 0))
        if lines:
            style.append(("LINEBELOW", (0, 0), (-1, -1), 0.5, LINE))
        if box:
            style += [("BACKGROUND", (0, 0), (-1, -1), box[0]), ("BOX", (0, 0), (-1, -1), 0.7, box[1])]
        return Grid(rows, colWidths=list(widths), repeatRows=repeat, style=TableStyle(style), hAlign="LEFT")


def _widths(heads: list[str], rows: list[list[str]], width: float) -> list[float]:
    """Column widths by what stands in them, at least a little for each."""
    lengths = [
        max(4, min(24, max([len(row[column]) for row in rows] + [max(map(len, head.split()), default=0)])))
        for column, head in enumerate(heads)
    ]
    return [width * length / sum(lengths) for length in lengths]
