"""Pages that Neuraxis writes can be read in the light and in the dark theme of a browser, and in print."""

from __future__ import annotations

import re

import pytest
from project_tree import ROOT, relative

from NeuraxisLib.curve_view import COLORS

PAGES = [
    ROOT / "Neuraxis" / "NeuraxisLib" / "Resources" / "report.html.jinja",
    ROOT / "Neuraxis" / "NeuraxisLib" / "Resources" / "batch.html.jinja",
    ROOT / "Training" / "evaluation" / "report.html.jinja",
]
#: (ink, ground) that meet on a page, and the contrast that WCAG 2.1 (AA) asks of small text.
PAIRS = [("ink", "page"), ("ink", "card"), ("soft", "page"), ("soft", "card"), ("warn-ink", "warn"), ("accent", "card")]
SMALL_TEXT, LINES = 4.5, 3.0
#: Rules of pictures, of scans and of plots that were drawn on white.
PICTURES = re.compile(r"svg|figure|plot|print")
#: Curves that a perfusion report draws: artery as found and corrected, vein, tissue.
CURVES = 4
SCHEMES = ("light", "dark")


def luminance(color: str) -> float:
    """Relative luminance of ``#rgb`` or ``#rrggbb``."""
    digits = color.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def colors(path, scheme: str) -> dict[str, str]:
    """The colours of a page by name, in one scheme."""
    text = path.read_text(encoding="utf-8")
    light = re.search(r":root \{(.*?)\}", text, re.DOTALL)[1]
    dark = re.search(r"prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", text, re.DOTALL)[1]
    found = dict(re.findall(r"--([\w-]+): (#\w+)", light))
    return found | dict(re.findall(r"--([\w-]+): (#\w+)", dark)) if scheme == "dark" else found


def test_contrast_is_that_of_the_definition():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_words_stand_out_from_their_ground(path, scheme):
    named = colors(path, scheme)
    assert {pair: round(contrast(*(named[name] for name in pair)), 2) for pair in PAIRS
            if contrast(*(named[name] for name in pair)) < SMALL_TEXT} == {}  # fmt: skip


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_no_rule_names_a_colour_that_the_dark_theme_does_not_change(path):
    """Text and ground take their colours by name; pictures keep theirs."""
    style = re.search(r"<style>(.*?)</style>", path.read_text(encoding="utf-8"), re.DOTALL)[1]
    rules = re.sub(r":root \{.*?\}", "", style, flags=re.DOTALL)
    fixed = re.findall(r"([^{}]+)\{[^{}]*?(?:^|[;{\s])(?:color|background): ?(#\w+)", rules)
    assert {(rule.split("\n")[-1].strip(), color) for rule, color in fixed if not PICTURES.search(rule)} == set()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_curves_stand_out_in_both_themes(scheme):
    card = colors(PAGES[0], scheme)["card"]
    assert {color: round(contrast(color, card), 2) for color in COLORS[:CURVES] if contrast(color, card) < LINES} == {}
