"""The report: its words, its pictures by pixels, and that it fetches nothing and runs nothing."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib import RESEARCH_USE_NOTICE
from NeuraxisLib.curve_view import HEIGHT, WIDTH, curve_view
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.report import number_text, render_report
from NeuraxisLib.result import Curve, CurvePlot, Landmark, Measurement, Result, ScalarMap, Table
from NeuraxisLib.slice_view import Plane, outline_path, png_address, slice_views
from NeuraxisLib.volume import Volume

HEMORRHAGE = Path(__file__).resolve().parents[2] / "HemorrhageSeg" / "HemorrhageSegLib" / "Resources" / "labels.csv"
TABLE = LabelTable.read(HEMORRHAGE)
VOID = {"meta", "br", "img", "link", "input", "hr"}
# Directions of (i, j, k) in RAS for the ways in which scanners and converters store a head.
STORED = {
    "axial LPS": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "axial RAS": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "axial, feet last": ((-1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "axial, rows across": ((0, 1, 0), (1, 0, 0), (0, 0, 1)),
    "coronal": ((-1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "sagittal": ((0, -1, 0), (0, 0, -1), (-1, 0, 0)),
    "sagittal, turned": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
}


def head(directions="axial LPS", shape=(6, 40, 50), spacing=(1.0, 1.0, 1.0)) -> Volume:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(STORED[directions], float).T * spacing
    return Volume(np.full(shape, 40, np.int16), matrix, unit="HU")


def make_result(source: Volume | None = None, **changes) -> Result:
    source = source or head()
    labels = np.zeros(source.array.shape, np.uint8)
    labels[2:5, 10:20, 12:30] = 1
    labels[3, 10:22, 12:30] = 1
    entropy = np.zeros(source.array.shape, np.float32)
    entropy[1, 10:12] = 1.0
    fields = {
        "labels": source.like(labels),
        "maps": {"uncertainty": ScalarMap(source.like(entropy, "bit"), "Uncertainty (entropy)", (0.0, 1.0))},
        "measurements": [
            Measurement("Total volume", 26.07, "mL", (22.04, 30.96), note="How it was made."),
            Measurement("Largest diameter", None, "mm"),
        ],
        "tables": {"components": Table("Components", (("Component", ""), ("Volume", "mL")), ((1, 26.07),))},
        "key_slices": [1, 3],
        "warnings": ["Trained on simulation."],
        "provenance": {"model": {"name": "starter", "sha256": "ab12"}, "device": "cpu"},
    }
    return Result("hemorrhage", source, **(fields | changes))


class Page(HTMLParser):
    """Checks that tags close in order; collects attributes and text."""

    def __init__(self, text: str):
        super().__init__()
        self.open_tags, self.tags, self.attributes, self.words = [], set(), [], []
        self.feed(text)
        assert self.open_tags == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def pixels(address: str) -> np.ndarray:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    return np.asarray(image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,")))))


# -- words ------------------------------------------------------------------------------------------------------


def test_the_page_says_what_a_reader_needs():
    text = Page(render_report(make_result(), TABLE)).text
    for words in (
        "Hemorrhage report",
        RESEARCH_USE_NOTICE,
        "Total volume 26.1 mL",
        "80% interval 22.0 to 31.0 mL",
        "Trained on simulation.",
        "How it was made.",
        "Largest diameter – mm",
        "level 40, width 80 HU",
        "Largest area, uncertainty rank 2 · slice 4 of 6",
        "uncertainty rank 1",
        "sha256 ab12",
        "50 × 40 × 6",
    ):
        assert words.casefold() in text.casefold(), words


def test_every_word_of_a_result_is_escaped():
    evil = "<script>alert('x')</script>\"><img src=x onerror=y>"
    source = head()
    source.meta["series"] = evil
    result = make_result(
        source,
        measurements=[Measurement(evil, 1.0, evil, (0.5, 2.0), evil, evil)],
        tables={"t": Table(evil, ((evil, evil),), ((evil,),))},
        warnings=[evil],
        provenance={evil: {evil: evil}, "list": [evil]},
        maps={"m": ScalarMap(source.like(np.zeros(source.array.shape), evil), evil, (0.0, 1.0))},
    )
    page = render_report(result, LabelTable((type(TABLE[1])(1, evil, (1, 2, 3)),)))
    assert "<script" not in page and "<img" not in page
    assert Page(page).tags.isdisjoint({"script", "img"})
    assert page.count("&lt;script&gt;") >= 10


def test_the_page_needs_no_network_and_runs_no_script():
    page = render_report(make_result(), TABLE)
    parsed = Page(page)
    references = [v for _, name, v in parsed.attributes if name in ("href", "src", "xlink:href", "srcset", "action")]
    assert len(references) > 6
    assert all(value.startswith(("data:image/png;base64,", "#image-")) for value in references)
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert re.search(r"https?:|url\(|@import|<script", page) is None
    assert "default-src 'none'" in page


def test_a_result_with_nothing_in_it_still_makes_a_page():
    text = Page(render_report(Result("hemorrhage", head()), TABLE)).text
    assert "overview" in text.casefold()
    assert "Read this first" not in text and "Measurements" not in text


def test_segments_are_named_only_where_there_are_several():
    measured = [Measurement("Volume", 1.0, "mL", segment="Clot")]
    one = Page(render_report(make_result(measurements=measured), TABLE)).text
    two = LabelTable((TABLE[1], type(TABLE[1])(2, "Oedema", (1, 2, 3))))
    assert "Clot" not in one
    assert "Volume · Clot" in Page(render_report(make_result(measurements=measured), two)).text


def test_an_empty_mask_shows_overview_slices_and_a_zero():
    source = head()
    nothing = source.like(np.zeros(source.array.shape, np.uint8))
    zero = [Measurement("Total volume", 0.0, "mL", (0.0, 0.0))]
    text = Page(render_report(make_result(labels=nothing, key_slices=[], measurements=zero), TABLE)).text
    assert "Total volume 0.0 mL" in text
    assert text.casefold().count("overview") == 3


def test_geometry_of_tilted_and_unequal_series_is_told():
    matrix = np.eye(4)
    matrix[1, 2] = np.tan(np.radians(20))
    origins = np.array([(0, 0, z) for z in (0.0, 4.0, 8.0, 12.0, 19.0, 26.0)])
    assert "Gantry tilt 20.0°" in Page(render_report(make_result(Volume(head().array, matrix)), TABLE)).text
    uneven = Volume(head().array, np.eye(4), unit="HU", slice_origins_ras=origins)
    assert "1 × 1 × 4.00 to 7.00 mm" in Page(render_report(make_result(uneven), TABLE)).text


def test_slice_positions_are_those_slicer_shows():
    matrix = np.diag([-1.0, -1.0, 5.0, 1.0])
    matrix[2, 3] = -12.5
    text = Page(render_report(make_result(Volume(head().array, matrix, unit="HU")), TABLE)).text
    assert "slice 2 of 6 · I 7.5 mm" in text  # -12.5 + 5
    assert "slice 4 of 6 · S 2.5 mm" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "mL", "–"),
        (float("nan"), "", "–"),
        (0.0, "mL", "0.0"),
        (0.0349, "mL", "0.03"),
        (26.06, "mL", "26.1"),
        (41.27, "mm", "41.3"),
        (np.int64(7), "slices", "7"),
        (7.0, "slices", "7"),
        (0.123456, "", "0.123"),
        ("left", "", "left"),
        (True, "", "yes"),
    ],
)
def test_numbers_read_as_expected(value, unit, text):
    assert number_text(value, unit) == text


# -- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", STORED)
def test_slices_are_shown_with_right_or_anterior_on_the_left(stored):
    """A bright voxel at the patient's right, anterior and superior end is up and left in the picture."""
    volume = head(stored, shape=(41, 42, 43))
    corner = tuple(0 if min(step) < 0 else -1 for step in STORED[stored][::-1])  # the end that is farthest R, A, S
    volume.array[corner] = 80
    k = range(41)[corner[0]]
    (view,) = slice_views(volume, [k], None, TABLE, None)
    picture = pixels(view.image)
    assert tuple(np.argwhere(picture == 255)[0]) == (0, 0)
    assert (picture == 255).sum() == 1
    expected = {"coronal": "RLSI", "sagittal": "APSI", "sagittal, turned": "APSI"}.get(stored, "RLAP")
    assert "".join(view.letters) == expected


def test_grey_values_follow_the_brain_window():
    volume = head()
    volume.array[2, 20, :5] = (-1000, 0, 20, 80, 3000)
    (view,) = slice_views(volume, [2], None, TABLE, None)
    assert pixels(view.image)[20, :6].tolist() == [0, 0, 64, 255, 255, 128]


def test_pictures_have_the_size_of_the_patient():
    volume = head(spacing=(0.5, 2.0, 5.0))
    (view,) = slice_views(volume, [0], None, TABLE, None)
    assert (view.width_mm, view.height_mm) == (25.0, 80.0)
    assert Plane.of(volume).pixel_mm == (0.5, 2.0)


def test_air_around_the_patient_is_cut_away():
    volume = head(shape=(4, 100, 100))
    volume.array[:] = -1000
    volume.array[:, 30:70, 40:60] = 40
    (view,) = slice_views(volume, [0], None, TABLE, None)
    assert (view.width_mm, view.height_mm) == (24.0, 44.0)


def test_outlines_follow_the_pixel_edges():
    assert outline_path(np.ones((1, 1), bool)) == "M0 0H1M0 1H1M0 0V1M1 0V1"
    path = outline_path(np.array([[0, 0, 0], [1, 1, 0], [0, 1, 0]], bool))
    edges = set(re.findall(r"M\d+ \d+[HV]\d+", path))
    assert edges == {"M0 1H2", "M0 2H1", "M1 3H2", "M0 1V2", "M1 2V3", "M2 1V3"}
    assert outline_path(np.zeros((3, 3), bool)) == ""


def test_the_mask_is_outlined_in_its_colour_where_it_lies():
    (view,) = slice_views(head(), [3], make_result().labels, TABLE, None)
    assert view.outlines == [("Hemorrhage", "#bc411c", "M12 10H30M12 22H30M12 10V22M30 10V22")]


def test_the_map_covers_only_what_is_uncertain():
    result = make_result()
    (view,) = slice_views(result.source, [1], None, TABLE, result.maps["uncertainty"])
    rgba = pixels(view.overlay)
    assert (rgba[10:12, :, 3] == 255).all() and (rgba[10, 0, :3] == (255, 245, 140)).all()
    assert rgba[..., 3].sum() == 255 * 2 * 50


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 4), (1, 1)])
def test_png_is_lossless(shape):
    image = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(pixels(png_address(image)), image)


def test_the_note_of_the_uncertainty_stands_beside_its_colours() -> None:
    shown = make_result().maps["uncertainty"]
    noted = make_result(maps={"uncertainty": replace(shown, note="Mean of <several> passes.")})
    assert "Uncertainty (entropy): Mean of &lt;several&gt; passes." in render_report(noted, TABLE)
    assert "Uncertainty (entropy): Mean" not in render_report(make_result(), TABLE)


# -- curves and points --------------------------------------------------------------------------------------------


def vessels() -> CurvePlot:
    times = tuple(range(0, 45, 3))
    artery = tuple(100.0 * (t == 12) for t in times)
    return CurvePlot("Vessels <b>", curves=(Curve("Artery", times, artery), Curve("Vein", (0, 9), (10.0, -20.0))))


def test_curves_are_drawn_to_scale():
    view = curve_view(vessels())
    assert (view.x_title, view.y_title) == ("Time [s]", "Contrast [HU]")
    assert [words for _, words in view.x_ticks] == ["0", "10", "20", "30", "40", "50"]
    assert [words for _, words in view.y_ticks] == ["-20", "0", "20", "40", "60", "80", "100"]
    numbers = [tuple(map(float, pair.split())) for pair in re.split("[ML]", view.lines[0][2])[1:]]
    top = min(numbers, key=lambda pair: pair[1])
    assert top[1] == pytest.approx(view.top, abs=0.06)  # 100 HU is the top of the axis
    assert top[0] == pytest.approx(view.left + 12 / 50 * (view.right - view.left), abs=0.06)
    ends = [tuple(map(float, pair.split())) for pair in re.split("[ML]", view.lines[1][2])[1:]]
    assert ends[1][1] == pytest.approx(view.bottom, abs=0.06)  # -20 HU
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in numbers + ends)


def test_what_was_not_measured_interrupts_a_curve():
    curve = Curve("Tissue", range(5), (1, 2, float("nan"), 2, 1))
    assert re.sub(r"[^ML]", "", curve_view(CurvePlot("One", curves=(curve,))).lines[0][2]) == "MLML"
    assert curve_view(CurvePlot("None", curves=(Curve("Empty", (), ()),))) is None


@pytest.mark.parametrize("values", [(0.0, 0.0), (5.0, 5.0), (-3e-7, 4e-7), (1e6, 3e6)])
def test_any_range_of_values_has_axes(values):
    view = curve_view(CurvePlot("Any", curves=(Curve("c", (2, 2), values),)))
    assert 2 <= len(view.y_ticks) <= 9 and len({words for _, words in view.y_ticks}) == len(view.y_ticks)


def test_the_page_shows_curves_and_points():
    points = [Landmark("Artery", (-12.3, 4.0, 30.04), None, "chosen by you"), Landmark("L1/L2", (0, 0, 0), 0.5)]
    page = Page(render_report(make_result(curves={"vessels": vessels()}, points=points), TABLE))
    for words in ("Vessels <b>", "Artery", "Vein", "Time [s]", "Contrast [HU]", "Points", "chosen by you", "-12.3"):
        assert words in page.text, words
    drawn = [value for tag, name, value in page.attributes if (tag, name) == ("path", "d")]
    assert curve_view(vessels()).lines[0][2] in drawn
