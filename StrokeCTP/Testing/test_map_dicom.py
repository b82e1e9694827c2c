"""Perfusion maps in DICOM, as vendors write them: numbers in every guise, palettes, pictures with a colour bar."""

from __future__ import annotations

import numpy as np
import pytest
from map_series import (
    SIDE,
    SLICES,
    SPACING_MM,
    TOPS,
    brain,
    colour_series,
    mapping,
    one_sentence,
    palette_series,
    scalar_series,
    values,
    volume,
    write,
)

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.parametric_map import Quantity, write_parametric_map
from StrokeCTPLib.colour_scales import colour_table, coloured, with_bar
from StrokeCTPLib.map_dicom_tags import stated_range
from StrokeCTPLib.map_set import holds_maps, read_map_set
from StrokeCTPLib.map_units import DENSITY
from Testing.dicom_series import save, series

#: Half a row of a bar of 96 rows.
BAR_ROUNDING = 0.0055


def pictures(kind: str, scale: str = "time", bar: bool = True) -> np.ndarray:
    """RGB slices of a map as a vendor renders them."""
    rgb = coloured(values(kind), scale, (0, TOPS[kind]))
    return with_bar(rgb, scale, (0, TOPS[kind])) if bar else rgb


def assert_close(found, kind: str, tolerance: float):
    array = found.maps[kind].array[..., :SIDE]
    assert np.array_equal(np.isfinite(array), brain())
    assert np.nanmax(np.abs(array - values(kind))) <= tolerance


# -- numbers --------------------------------------------------------------------------------------------------


def test_scaled_numbers_with_the_unit_in_the_rescale_type(tmp_path):
    write(scalar_series(values("cbf"), "CBFD", RescaleType="ml/100g/min"), tmp_path)
    write(scalar_series(values("tmax"), "TMAXD", slope=0.001, RescaleType="s"), tmp_path)
    write(scalar_series(np.zeros((SLICES, SIDE, SIDE)), "PenumbraCore"), tmp_path)
    found = read_map_set(tmp_path)
    assert list(found.maps) == ["cbf", "tmax"] and found.source == "DICOM" and holds_maps(tmp_path)
    assert not [note for note in found.notes if "states no unit" in note]
    assert_close(found, "cbf", 0.0051)
    assert_close(found, "tmax", 0.00051)
    assert found.grid.spacing_mm == pytest.approx(SPACING_MM)
    assert np.allclose(found.grid.ijk_to_ras[:3, 3], [70, 70, 0])


@pytest.mark.parametrize(
    ("unit", "slope"),
    [("ml/(100.g.min)", 0.02), ("ml/min/ml", 0.02 * DENSITY / 100), ("ml/[100]ml/min", 0.02 * DENSITY)],
)
def test_real_world_values_go_before_rescaling(tmp_path, unit, slope):
    images = scalar_series(values("cbf"), "Perfusion", slope=0.02)
    for one in images:
        one.RealWorldValueMappingSequence = mapping(slope, unit, "CBF")
        one.RescaleSlope, one.RescaleType = 7.0, "US"
    write(images, tmp_path)
    assert_close(read_map_set(tmp_path), "cbf", 0.0101)


def test_units_in_the_description_and_unstated_units(tmp_path):
    write(scalar_series(values("cbf") * DENSITY, "CBF (ml/100ml/min)", RescaleType="HU"), tmp_path / "one")
    found = read_map_set(tmp_path / "one")
    assert_close(found, "cbf", 0.006)
    write(scalar_series(values("cbf"), "CBF", RescaleType="HU"), tmp_path / "two")  # what CT says of anything
    assert any("states no unit" in note for note in read_map_set(tmp_path / "two").notes)


def test_wrong_units_and_scales(tmp_path):
    write(scalar_series(values("tmax"), "Tmax", RescaleType="ml/100g"), tmp_path / "one")
    with pytest.raises(InputError, match="is in 'ml/100g', which is no unit of TMAX") as error:
        read_map_set(tmp_path / "one")
    one_sentence(error)
    write(scalar_series(values("cbf"), "rCBF [%]"), tmp_path / "two")
    with pytest.raises(InputError, match="is relative"):
        read_map_set(tmp_path / "two")
    write(scalar_series(values("tmax") * 100, "Tmax", slope=1), tmp_path / "three")  # hundredths of a second
    with pytest.raises(InputError, match="cannot be TMAX in s"):
        read_map_set(tmp_path / "three")


def test_padding_has_no_value(tmp_path):
    images = scalar_series(np.where(brain(), values("cbf"), -10), "CBF")
    for one in images:
        one.add_new("PixelPaddingValue", "SS", -1000)
    write(images, tmp_path)
    assert_close(read_map_set(tmp_path), "cbf", 0.0051)


def test_parametric_maps_go_before_numbers_and_pictures(tmp_path):
    flow = Quantity("Cerebral blood flow", "CBF", "ml/(100.g.min)", "mL/100 g/min")
    matrix = volume("cbf").ijk_to_ras
    write_parametric_map(volume("cbf"), tmp_path / "map.dcm", flow)
    write(scalar_series(values("cbf") * 0.9, "CBF"), tmp_path / "numbers")
    write(colour_series(pictures("cbf"), "CBF RGB"), tmp_path / "pictures")
    found = read_map_set(tmp_path)
    assert np.array_equal(found.maps["cbf"].array, values("cbf"), equal_nan=True)
    assert np.allclose(found.grid.ijk_to_ras, matrix)


def test_numbers_go_before_pictures_and_twice_is_refused(tmp_path):
    write(scalar_series(values("tmax"), "TMAXD"), tmp_path)
    write(colour_series(pictures("tmax"), "TMAXD RGB"), tmp_path)
    assert_close(read_map_set(tmp_path), "tmax", 0.0051)
    write(scalar_series(values("tmax"), "Tmax second reading"), tmp_path)
    with pytest.raises(InputError, match="holds the map TMAX 2 times"):
        read_map_set(tmp_path)


def test_grey_pictures_are_no_numbers(tmp_path):
    images = palette_series(np.full((SLICES, SIDE, SIDE), 90), np.zeros((256, 3)), "CBF",
                            PhotometricInterpretation="MONOCHROME2")  # fmt: skip
    write(images, tmp_path)
    with pytest.raises(InputError, match="is a grey picture without numbers"):
        read_map_set(tmp_path)


def test_a_scan_is_no_map(tmp_path):
    save(series([0.0, 5.0, 10.0]), tmp_path)
    assert not holds_maps(tmp_path)
    with pytest.raises(InputError, match="holds no perfusion map"):
        read_map_set(tmp_path)


# -- palette --------------------------------------------------------------------------------------------------


def test_palette_colour_by_its_own_palette(tmp_path):
    palette = np.zeros((256, 3), np.uint8)
    palette[:56] = np.arange(56)[:, None] * 4  # grey anatomy
    palette[56:] = colour_table("time", 200)
    index = np.where(brain(), 56 + np.rint(np.nan_to_num(values("tmax")) / 12 * 199), 0)
    index[:, 10:14, 10:14] = 40
    write(palette_series(index, palette, "Tmax"), tmp_path)
    with pytest.raises(InputError, match="as the range of tmax"):
        read_map_set(tmp_path)
    found = read_map_set(tmp_path, ranges={"tmax": 12})
    assert_close(found, "tmax", 12 * 0.0026 + 12 * 0.001)
    assert np.isnan(found.maps["tmax"].array[:, 10:14, 10:14]).all()


def test_a_grey_palette_names_no_values(tmp_path):
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    write(palette_series(np.full((SLICES, SIDE, SIDE), 90), palette, "Tmax"), tmp_path)
    with pytest.raises(InputError, match="has not one colour for each value"):
        read_map_set(tmp_path, ranges={"tmax": 12})


# -- pictures -------------------------------------------------------------------------------------------------


def test_pictures_need_their_range(tmp_path):
    write(colour_series(pictures("tmax"), "TMAXD RGB #20200101"), tmp_path)
    with pytest.raises(
        InputError, match=r"Series \w{6} \(TMAX\) shows TMAX in colours .* as the range of tmax"
    ) as error:
        read_map_set(tmp_path)
    one_sentence(error)
    found = read_map_set(tmp_path, ranges={"tmax": 12})
    assert_close(found, "tmax", 12 * BAR_ROUNDING)
    assert found.confidence["tmax"].array[..., :SIDE][brain()].min() > 0.9
    assert not found.confidence["tmax"].array[..., SIDE:].any()


def test_pictures_that_say_their_range_in_words(tmp_path):
    write(colour_series(pictures("tmax"), "Tmax", ImageComments="Colour scale 0 - 12 s"), tmp_path)
    assert_close(read_map_set(tmp_path), "tmax", 12 * BAR_ROUNDING)
    found = read_map_set(tmp_path, ranges={"tmax": 6})  # the user knows better
    assert np.nanmax(found.maps["tmax"].array) <= 6


@pytest.mark.parametrize(
    ("kind", "text", "scale"),
    [
        ("cbf", "CBF 0-100 mL/100 g/min", (0, 100)), ("cbf", "CBF [0..80 ml/100g/min]", (0, 80)),
        ("cbv", "0 to 6,5 ml/100g", (0, 6.5)), ("tmax", "0-12000 ms", (0, 12)),
        ("cbf", "0 - 105 ml/100ml/min", (0, 100)), ("tmax", "0-12", None),
        ("tmax", "series 2-3 slices", None), ("tmax", "0-100 ml/100g/min", None),
        ("cbf", "H20f 5-10 mm", None), ("tmax", "", None),
    ],
)  # fmt: skip
def test_ranges_are_believed_only_with_their_unit(kind, text, scale):
    (one,) = scalar_series(np.zeros((1, 4, 4)), text)
    found = stated_range(one, kind)
    assert found is None if scale is None else found == pytest.approx(scale)


def test_pictures_without_a_bar(tmp_path):
    write(colour_series(pictures("tmax", bar=False), "TMAX"), tmp_path)
    with pytest.raises(InputError, match="shows no colour bar") as error:
        read_map_set(tmp_path, ranges={"tmax": 12})
    one_sentence(error)


def test_text_grey_and_overlay_get_no_value_and_no_confidence(tmp_path):
    rgb = pictures("cbf", "flow")
    rgb[:, 40:50, 40:50] = np.arange(60, 160, 10, dtype=np.uint8)[:, None, None]  # anatomy
    rgb[:, 60:64, 30:60] = 255  # text
    rgb[:, 70:78, 30:50] = (0, 255, 255)  # an overlay in a colour that the bar does not have
    write(colour_series(rgb, "CBF"), tmp_path)
    found = read_map_set(tmp_path, ranges={"cbf": 100})
    array, sure = found.maps["cbf"].array, found.confidence["cbf"].array
    for box in (np.s_[:, 40:50, 40:50], np.s_[:, 60:64, 30:60], np.s_[:, 70:78, 30:50]):
        assert np.isnan(array[box]).all() and not sure[box].any()
    assert np.isfinite(array[..., :SIDE][brain()]).mean() > 0.9


def test_pictures_that_do_not_say_where_they_are(tmp_path):
    nothing = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"))
    images = colour_series(pictures("tmax"), "TMAX", **nothing)
    write(images[::-1], tmp_path)
    with pytest.raises(GeometryError, match="does not state the size of its voxels") as error:
        read_map_set(tmp_path, ranges={"tmax": 12})
    one_sentence(error)
    found = read_map_set(tmp_path, ranges={"tmax": 12}, spacing_mm=SPACING_MM)
    assert_close(found, "tmax", 12 * BAR_ROUNDING)  # in the order of their numbers, not of the files
    assert any("does not say where its slices lie" in note for note in found.notes)


def test_intensity_pictures_are_kept_as_greys_and_others_left_out(tmp_path):
    grey = np.where(brain(), 102, 0).astype(np.uint8)
    write(scalar_series(values("tmax"), "Tmax"), tmp_path)
    write(colour_series(np.repeat(grey[..., None], 3, -1), "CTP MIP"), tmp_path)
    found = read_map_set(tmp_path)
    assert np.allclose(found.maps["mip"].array[brain()], 150 * 102 / 255)
    write(scalar_series(np.full((SLICES, SIDE, SIDE), 1000.0), "MIP", slope=1), tmp_path)
    found = read_map_set(tmp_path)  # no HU of a head: left out, but the maps are there
    assert list(found.maps) == ["tmax"] and any("was left out" in note for note in found.notes)


def test_maps_of_different_series_grids(tmp_path):
    write(scalar_series(values("tmax"), "Tmax"), tmp_path)
    write(scalar_series(values("cbf")[:, ::2, ::2], "CBF"), tmp_path)
    with pytest.raises(GeometryError, match="CBF and TMAX lie on different grids"):
        read_map_set(tmp_path)
