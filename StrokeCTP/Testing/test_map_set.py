"""Perfusion maps in files, results and pictures as one set; what cannot be one is refused with a remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from map_series import SIDE, SLICES, SPACING_MM, TOPS, UNITS, brain, one_sentence, values, volume

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.result import Result, ScalarMap
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.volume import Volume
from StrokeCTPLib.colour_scales import STAVANGER_RANGES, coloured, parse_ranges, with_bar
from StrokeCTPLib.map_names import kind_of
from StrokeCTPLib.map_set import holds_maps, read_map_set
from StrokeCTPLib.map_units import DENSITY, unit_factor

#: The tests need a table of labels, whichever.
LABELS = LabelTable.read(Path(__file__).parents[1] / "StrokeCTPLib" / "Resources" / "labels.csv")
#: Half a row of a bar of 96 rows.
BAR_ROUNDING = 0.0055
NAMES = ("cbf", "cbv", "mtt", "tmax", "ttp", "delay")


def write_files(folder, names=("cbf", "tmax"), suffix=".nrrd"):
    folder.mkdir(exist_ok=True)
    for name in names:
        write_volume(volume(name), folder / f"{name}{suffix}")
    return folder


# -- names and units ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("rCBF", "cbf"), ("sub-01_CTP_rCBF_map", "cbf"), ("TMAXD RGB #20200101", "tmax"), ("Results_CBFD", "cbf"),
        ("TTPM", "ttp"), ("T max", "tmax"), ("Cerebral Blood Flow", "cbf"), ("blood volume (mL/100 g)", "cbv"),
        ("SMIR.Brain.XX.O.CT_Tmax.350278", "tmax"), ("Perfusion MTT", "mtt"), ("Mean Transit Time", "mtt"),
        ("Time to maximum", "tmax"), ("BF", "cbf"), ("delay_map", "delay"), ("tMIP", "mip"), ("CBF1", "cbf"),
        ("PenumbraCore", None), ("CTP 5.0 H31s", None), ("CBF CBV MTT", None), ("tmax_seg", None), ("TTD", None),
        ("cbf_mask", None), ("scan", None), ("", None),
    ],
)  # fmt: skip
def test_names_that_vendors_give(text, kind):
    assert kind_of(text) == kind


def test_the_first_telling_text_names_the_map():
    assert kind_of("", "Perfusion", "Tmax (s)", "CBF") == "tmax"


@pytest.mark.parametrize(
    ("kind", "unit", "factor"),
    [
        ("cbf", "mL/100 g/min", 1), ("cbf", "ml/(100.g.min)", 1), ("cbf", "ml/[100]g/min", 1),
        ("cbf", "ml per 100 g per minute", 1), ("cbf", "mL/100mL/min", 1 / DENSITY), ("cbf", "ml/min/g", 100),
        ("cbv", "mL/100 mL", 1 / DENSITY), ("cbv", "ml/g", 100), ("tmax", "ms", 1e-3), ("mtt", "min", 60),
        ("delay", "[s]", 1), ("mip", "[hnsf'U]", 1), ("cbf", "HU", None), ("tmax", "", None), ("cbv", "US", None),
    ],
)  # fmt: skip
def test_units(kind, unit, factor):
    found = unit_factor(kind, unit, "The map")
    assert found is None if factor is None else found == pytest.approx(factor)


@pytest.mark.parametrize(("kind", "unit"), [("cbf", "s"), ("tmax", "mL/100 g"), ("cbv", "mm"), ("mip", "s")])
def test_wrong_units(kind, unit):
    with pytest.raises(InputError, match=f"is in '{unit}', which is no unit of {kind.upper()}") as error:
        unit_factor(kind, unit, "The map")
    one_sentence(error)


def test_relative_maps_are_refused():
    with pytest.raises(InputError, match=r"relative \('%'\).*choose the absolute map"):
        unit_factor("cbf", "%", "The map")


# -- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_scalar_files_come_back_exactly(tmp_path, suffix):
    found = read_map_set(write_files(tmp_path / "maps", NAMES, suffix))
    assert list(found.maps) == ["cbf", "cbv", "mtt", "tmax", "ttp", "delay"] and not found.confidence
    for name in NAMES:
        assert np.array_equal(found.maps[name].array, values(name), equal_nan=True)
        assert found.maps[name].unit == UNITS[name]
    assert np.array_equal(found.known, brain()) and holds_maps(tmp_path / "maps")
    unsaid = [note for note in found.notes if "states no unit" in note]
    assert len(unsaid) == (0 if suffix == ".nrrd" else len(NAMES))  # NIfTI has no place for it


def test_zero_outside_the_brain_becomes_no_value(tmp_path):
    for name in ("cbf", "tmax"):
        array = np.nan_to_num(values(name))
        array[0, 48, 48] = 0  # in the brain, both 0: nothing is known there either
        array[1, 48, 48] = 0 if name == "tmax" else 40.0
        write_volume(Volume(array, volume(name).ijk_to_ras), tmp_path / f"{name}.nii.gz")
    found = read_map_set(tmp_path)
    assert np.isnan(found.maps["tmax"].array[0, 48, 48]) and found.maps["tmax"].array[1, 48, 48] == 0
    assert found.known.sum() == brain().sum() - 1


def test_maps_in_sub_folders_and_single_files(tmp_path):
    for name in ("cbf", "tmax"):
        folder = tmp_path / "case" / f"SMIR.CT_{name.upper()}.12"
        folder.mkdir(parents=True)
        write_volume(volume(name), folder / "image.nrrd")
    assert list(read_map_set(tmp_path / "case").maps) == ["cbf", "tmax"]
    write_files(tmp_path / "files", ("cbf", "cbv"))
    assert list(read_map_set([tmp_path / "files" / "cbv.nrrd", tmp_path / "files" / "cbf.nrrd"]).maps) == ["cbf", "cbv"]
    assert list(read_map_set(tmp_path / "files" / "cbf.nrrd").maps) == ["cbf"]


def test_other_units_are_converted(tmp_path):
    write_volume(replace(volume("tmax"), array=values("tmax") * 1000, unit="ms"), tmp_path / "tmax.nrrd")
    write_volume(replace(volume("cbf"), array=values("cbf") * DENSITY, unit="mL/100 mL/min"), tmp_path / "cbf.nrrd")
    found = read_map_set(tmp_path)
    for name in ("cbf", "tmax"):
        assert np.allclose(found.maps[name].array, values(name), rtol=1e-6, equal_nan=True)
    assert "'tmax.nrrd' was converted from ms to s." in found.notes


def test_values_that_cannot_be_in_the_unit(tmp_path):
    write_volume(Volume(values("tmax") * 1000, volume("tmax").ijk_to_ras), tmp_path / "tmax.nii.gz")  # ms, unsaid
    with pytest.raises(InputError, match=r"'tmax.nii.gz' cannot be TMAX in s \(its median is") as error:
        read_map_set(tmp_path)
    one_sentence(error)
    write_volume(Volume(np.zeros((4, 9, 9), np.float32), volume("tmax").ijk_to_ras), tmp_path / "tmax.nii.gz")
    with pytest.raises(InputError, match="is empty"):
        read_map_set(tmp_path)


def test_a_set_that_lacks_maps(tmp_path):
    found = read_map_set(write_files(tmp_path / "maps"))
    assert found.require(("cbf", "tmax")) is found
    with pytest.raises(InputError, match="map set is incomplete: CBV and TTP are missing") as error:
        read_map_set(tmp_path / "maps", required=("cbf", "cbv", "ttp"))
    one_sentence(error)


def test_different_grids(tmp_path):
    write_files(tmp_path / "maps")
    moved = volume("tmax").ijk_to_ras.copy()
    moved[0, 3] += 3
    write_volume(Volume(values("tmax"), moved, "s"), tmp_path / "maps" / "tmax.nrrd")
    with pytest.raises(GeometryError, match=r"CBF and TMAX lie on different grids \(3.0 mm apart\)") as error:
        read_map_set(tmp_path / "maps")
    one_sentence(error)
    write_volume(Volume(values("tmax")[:, ::2], moved, "s"), tmp_path / "maps" / "tmax.nrrd")
    with pytest.raises(GeometryError, match=r"\(96 x 96 x 4 and 96 x 48 x 4 voxels\)"):
        read_map_set(tmp_path / "maps")


def test_intensity_images_of_another_grid_are_left_out(tmp_path):
    write_files(tmp_path / "maps")
    write_volume(Volume(np.full((9, 20, 20), 90, np.int16), np.eye(4)), tmp_path / "maps" / "head_mip.nrrd")
    found = read_map_set(tmp_path / "maps")
    assert list(found.maps) == ["cbf", "tmax"] and any("MIP lies on another grid" in note for note in found.notes)


def test_a_map_twice(tmp_path):
    write_files(tmp_path / "maps")
    write_volume(volume("cbf"), tmp_path / "maps" / "site_rCBF.nrrd")
    assert list(read_map_set(tmp_path / "maps").maps) == ["cbf", "tmax"]  # cbf.nrrd is called just like the map
    (tmp_path / "maps" / "cbf.nrrd").rename(tmp_path / "maps" / "other_cbf.nrrd")
    with pytest.raises(InputError, match="CBF is there more than once"):
        read_map_set(tmp_path / "maps")


def test_what_is_no_map(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_map_set(tmp_path / "empty")
    with pytest.raises(InputError, match="was not found"):
        read_map_set(tmp_path / "absent")
    write_volume(volume("cbf"), tmp_path / "scan.nrrd")
    with pytest.raises(InputError, match=r"'scan.nrrd' is not named after a perfusion map"):
        read_map_set(tmp_path / "scan.nrrd")
    assert not holds_maps(tmp_path / "empty") and not holds_maps(tmp_path / "scan.nrrd")


# -- results --------------------------------------------------------------------------------------------------


def write_our_result(folder, names=NAMES):
    """A result folder with maps as the stroke task writes them: 0 outside the tissue."""
    maps = {
        name: ScalarMap(replace(volume(name), array=np.nan_to_num(values(name))), name.upper(), (0.0, TOPS[name]))
        for name in names
    }
    result = Result("stroke", volume(names[0]).like(np.zeros((SLICES, SIDE, SIDE), np.int16), "HU"), maps=maps)
    return write_result(result, folder, LABELS, report=False)


def test_maps_of_a_result_come_back_exactly(tmp_path):
    folder = write_our_result(tmp_path / "result")
    found = read_map_set(folder)
    for name in NAMES:
        assert np.array_equal(found.maps[name].array, values(name), equal_nan=True)
    assert found.source == "result of Neuraxis" and holds_maps(folder)


# -- colours in files -----------------------------------------------------------------------------------------


def write_colour_file(path, kind, bar=True):
    rgb = coloured(values(kind), "time", (0, TOPS[kind]))
    rgb = with_bar(rgb, "time", (0, TOPS[kind])) if bar else rgb
    picture = sitk.GetImageFromArray(rgb, isVector=True)
    picture.SetSpacing(SPACING_MM)
    sitk.WriteImage(picture, str(path))


def test_a_colour_file_needs_its_range_and_its_bar(tmp_path):
    write_colour_file(tmp_path / "tmax.nrrd", "tmax")
    with pytest.raises(InputError, match=r"upper end of its colour bar \(in s\) as the range of tmax") as error:
        read_map_set(tmp_path)
    one_sentence(error)
    found = read_map_set(tmp_path, ranges={"tmax": 12})
    read = found.maps["tmax"].array[..., :SIDE]
    assert np.nanmax(np.abs(read - values("tmax"))) <= 12 * BAR_ROUNDING
    sure = found.confidence["tmax"].array
    assert sure[..., :SIDE][brain()].min() > 0.9 and not sure[..., SIDE:].any()
    write_colour_file(tmp_path / "tmax.nrrd", "tmax", bar=False)
    with pytest.raises(InputError, match="shows no colour bar"):
        read_map_set(tmp_path, ranges={"tmax": 12})


def test_a_vendors_colour_map_is_never_taken_as_numbers(tmp_path, shared_data):
    path = tmp_path / "tmax.nii.gz"
    path.write_bytes((shared_data / "perfusion" / "vendor_rgb_map.nii.gz").read_bytes())
    with pytest.raises(InputError, match="as the range of tmax"):
        read_map_set(path)
    found = read_map_set(path, ranges={"tmax": 20})
    assert np.nanmin(found.maps["tmax"].array) >= 0 and np.nanmax(found.maps["tmax"].array) <= 20
    assert found.confidence["tmax"].array[found.known].mean() > 0.8


def test_ranges_in_words():
    assert parse_ranges("cbf=100, tmax=12.5") == {"cbf": 100.0, "tmax": 12.5}
    assert parse_ranges("Stavanger") == {kind: top for kind, (_, top) in STAVANGER_RANGES.items()}
    for wrong in ("cbf", "cbf=0", "cbf=x", "flow=3", "cbf=inf"):
        with pytest.raises(InputError, match="write such as cbf=100,tmax=12, or one of: stavanger"):
            parse_ranges(wrong)


# -- pictures -------------------------------------------------------------------------------------------------


def write_pictures(folder, kinds=("cbf", "cbv", "ttp", "tmax"), mip=True):
    """The Stavanger layout: a folder for each map, 01.png ..., colour bar at the right."""
    for kind in kinds:
        scale = "flow" if kind in ("cbf", "cbv") else "time"
        rgb = coloured(values(kind), scale, STAVANGER_RANGES[kind])
        _save_pngs(with_bar(rgb, scale), folder / kind.upper())
    if mip:
        grey = np.zeros((SLICES, SIDE, SIDE + 36), np.uint8)
        grey[..., :SIDE][brain()] = 102
        grey[..., SIDE + 8 : SIDE + 28] = 200
        _save_pngs(np.repeat(grey[..., None], 3, -1), folder / "MIP")
    return folder


def _save_pngs(stack, folder):
    folder.mkdir(parents=True)
    for k, picture in enumerate(stack, start=1):
        sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(folder / f"{k:02d}.png"))


def test_folders_of_pictures(tmp_path):
    folder = write_pictures(tmp_path / "CTP_01_001" / "20200101")
    with pytest.raises(InputError, match="as the range of cbf"):
        read_map_set(folder)
    found = read_map_set(tmp_path / "CTP_01_001", ranges=parse_ranges("stavanger"))
    assert list(found.maps) == ["cbf", "cbv", "tmax", "ttp", "mip"] and found.source == "pictures"
    for kind in ("cbf", "cbv", "tmax", "ttp"):
        read = found.maps[kind].array[..., :SIDE]
        assert np.nanmax(np.abs(read - values(kind))) <= TOPS[kind] * BAR_ROUNDING
        assert np.array_equal(np.isfinite(read), brain())
    mip = found.maps["mip"].array
    assert np.allclose(mip[..., :SIDE][brain()], 150 * 102 / 255) and np.isnan(mip[..., SIDE + 8 :]).all()
    assert found.grid.spacing_mm == pytest.approx((0.4366455, 0.4366455, 5)) and holds_maps(folder)
    assert any("state no voxel size" in note for note in found.notes)
    again = read_map_set(folder, ranges=parse_ranges("stavanger"), spacing_mm=(0.5, 0.6, 4))
    assert again.grid.spacing_mm == pytest.approx((0.5, 0.6, 4))
    assert not any("voxel size" in note for note in again.notes)


def test_pictures_that_do_not_belong_together(tmp_path):
    folder = write_pictures(tmp_path / "maps", ("cbf", "tmax"), mip=False)
    (folder / "TMAX" / "04.png").unlink()
    with pytest.raises(GeometryError, match="CBF and TMAX hold pictures of different slices"):
        read_map_set(folder, ranges=parse_ranges("stavanger"))
    write_pictures(tmp_path / "patient" / "20200101", ("cbf",), mip=False)
    write_pictures(tmp_path / "patient" / "20200102", ("cbf",), mip=False)
    with pytest.raises(InputError, match="several examinations"):
        read_map_set(tmp_path / "patient")
    (folder / "CBF" / "02.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="'02.png' is damaged"):
        read_map_set(folder, ranges=parse_ranges("stavanger"))
