"""Layouts of perfusion maps: the Stavanger folders, kept in colours or turned into numbers, and tables of map sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import one_sentence

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from StrokeCTPLib.colour_scales import STAVANGER_RANGES, colour_map
from StrokeCTPLib.map_units import MAP_UNITS
from Training import prepare
from Training.layouts import get_layout
from Training.layouts.base import LayoutOptions
from Training.layouts.maps_base import numbers_of_patient
from Training.layouts.stavanger import TEST, published_splits
from Training.store import Store

STAVANGER, TABLE = get_layout("stavanger"), get_layout("maps")
SCALES = {"cbf": "flow", "cbv": "flow", "ttp": "time", "tmax": "time"}
VALUES = {"cbf": (50.0, 10.0), "cbv": (4.0, 1.5), "ttp": (8.0, 16.0), "tmax": (2.0, 9.0)}
LESION = np.s_[:, 30:44, 34:50]


def maps_of(kind: str, slices: int = 2, seed: int = 0) -> np.ndarray:
    """(k, 80, 90): a brain with a lesion; NaN outside."""
    values = np.full((slices, 80, 90), np.nan, np.float32)
    values[:, 10:70, 14:76] = VALUES[kind][0] * (1 + 0.02 * seed)
    values[LESION] = VALUES[kind][1]
    return values


def truth_of(slices: int = 2) -> np.ndarray:
    labels = np.zeros((slices, 80, 90), np.uint8)
    labels[:, 10:70, 14:76] = 85
    labels[LESION] = 170
    labels[:, 34:40, 38:46] = 255
    return labels


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(path))


def write_patient(root: Path, name: str, slices: int = 2, seed: int = 0) -> None:
    folder = root / "Parametric_Maps" / f"CTP_{name}" / "20190101"
    for kind, scale in SCALES.items():
        pictures = colour_map(maps_of(kind, slices, seed), STAVANGER_RANGES[kind], scale)
        for k, picture in enumerate(pictures):
            save(folder / kind.upper() / f"{k + 1:02}.png", picture)
    for k in range(slices):
        grey = np.zeros(pictures.shape[1:3], np.uint8)
        grey[:, :90] = np.where(np.isnan(maps_of("cbf")[0]), 0, 90)
        save(folder / "MIP" / f"{k + 1:02}.png", np.repeat(grey[..., None], 3, -1))
        code = np.zeros(pictures.shape[1:3], np.uint16)
        code[:, :90] = truth_of()[0]
        code[12, 20] = 84  # a pixel that the released code took for penumbra
        save(root / "GT_TIFF" / f"CTP_{name}" / f"{k + 1:02}.tiff", code * 256)
    for empty in ("MTT", "Annotations"):
        (folder / empty).mkdir()


@pytest.fixture
def cohort(tmp_path) -> Path:
    root = tmp_path / "SUS"
    for seed, name in enumerate(("01_001", "01_002", "02_003", "22_003", "03_004")):
        write_patient(root, name, seed=seed)
    table = "id;nihss;age;gender\nCTP_01_001;12;071Y;M\nCTP_02_003;-;055Y;F\n"
    (root / "nihss_score.csv").write_text(table)
    return root


def test_folders_are_found_with_groups_splits_and_numbers(cohort):
    found = STAVANGER.find(cohort, LayoutOptions())
    assert found.findings == []
    by_id = {source.id: source for source in found.sources}
    assert {name: source.group for name, source in by_id.items()} == {
        "01_001": "LVO", "01_002": "LVO", "02_003": "Non-LVO", "22_003": "Non-LVO", "03_004": "WIS",
    }  # fmt: skip
    assert by_id["01_001"].split == "test" and by_id["22_003"].patient == "02_003"
    assert by_id["22_003"].split == by_id["02_003"].split
    assert by_id["01_001"].facts["scalars"] == {"nihss": 12.0, "age": 71.0, "gender": 0.0}
    assert by_id["02_003"].facts["scalars"] == {"age": 55.0, "gender": 1.0}


def test_the_published_split_of_the_whole_cohort():
    kinds = {"00": range(1, 3), "01": range(1, 76), "02": [*range(1, 58), 59, 60, 62], "03": range(1, 16)}
    everyone = [f"{kind}_{n:03}" for kind, numbers in kinds.items() for n in numbers]
    assert len(everyone) == 152
    splits = published_splits(everyone)
    counts = {split: sum(value == split for value in splits.values()) for split in ("train", "val", "test")}
    assert counts == {"train": 89, "val": 30, "test": 33}
    assert splits == published_splits(reversed(everyone)) and len(set(TEST)) == 33


def test_colours_are_kept_and_codes_taken_to_the_nearest(cohort):
    (source, *_) = STAVANGER.find(cohort, LayoutOptions()).sources
    case = STAVANGER.read(source, LayoutOptions())
    assert case.image.unit == "rgb" and case.image.array.dtype == np.uint8 and len(case.channels) == 15
    assert case.channels[:4] == ("cbf_red", "cbf_green", "cbf_blue", "cbv_red")
    picture = colour_map(maps_of("cbf"), STAVANGER_RANGES["cbf"], "flow")
    np.testing.assert_array_equal(case.image.array[:3], np.moveaxis(picture, -1, 0))
    assert case.image.spacing_mm == pytest.approx((0.4366455, 0.4366455, 5.0))
    assert np.unique(case.truth).tolist() == [0, 1, 2] and case.truth[0, 12, 20] == 0 and case.region[0, 12, 20]
    assert (case.truth[:, :, :90] == np.where(truth_of() == 255, 2, truth_of() == 170)).all()
    assert case.scalars["nihss"] == 12


def test_the_colour_bar_of_full_pictures_is_cut_off(tmp_path):
    write_patient(tmp_path, "01_005")
    folder = tmp_path / "Parametric_Maps" / "CTP_01_005" / "20190101"
    for path in [*folder.rglob("*.png"), *(tmp_path / "GT_TIFF").rglob("*.tiff")]:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        wide = np.full((512, 512, *array.shape[2:]), 0 if path.suffix == ".tiff" else 77, array.dtype)
        save(path, wide)
    (source,) = STAVANGER.find(tmp_path, LayoutOptions()).sources
    array = STAVANGER.read(source, LayoutOptions()).image.array
    assert (array[..., :435] == 77).all() and not array[..., 435:].any()


def test_colours_become_numbers_by_their_bar(cohort):
    options = LayoutOptions(colours="numbers")
    (source, *_) = STAVANGER.find(cohort, options).sources
    case = STAVANGER.read(source, options)
    assert case.image.unit == "maps" and case.channels == ("cbf", "cbv", "ttp", "tmax", "mip")
    for name, array in zip(case.channels, case.image.array):
        if name != "mip":
            span = STAVANGER_RANGES[name][1]
            inside = case.truth == 2
            assert abs(np.median(array[inside]) - VALUES[name][1]) < 0.02 * span
    assert not case.region[:, :5].any() and case.region[:, 20:60, 20:70].mean() > 0.95
    assert np.isfinite(case.image.array).all()


@pytest.mark.parametrize(
    "spoil, words",
    [(lambda root: next(root.rglob("TMAX")).rename(root / "gone"), "no folder TMAX"),
     (lambda root: next(root.rglob("CBV/02.png")).unlink(), "other slices in CBF than in its CBV"),
     (lambda root: next(root.rglob("01.tiff")).unlink(), "other slices in CBF than in its ground truth")],
)  # fmt: skip
def test_faults_name_the_patient_and_what_is_missing(tmp_path, spoil, words):
    write_patient(tmp_path, "01_002")
    spoil(tmp_path)
    (finding,) = STAVANGER.find(tmp_path, LayoutOptions()).findings
    assert finding.fault and finding.cases == ("01_002",) and words in finding.text


def test_numbers_of_patients():
    assert numbers_of_patient({"nihss": "-", "age": "", "gender": "F"}) == {"gender": 1.0}
    assert numbers_of_patient({"nihss": "7", "age": "071Y", "gender": "M"}) == {"nihss": 7, "age": 71, "gender": 0}
    for row in ({"nihss": "43"}, {"age": "old"}, {"nihss": "-3"}):
        with pytest.raises(InputError) as error:
            numbers_of_patient(row)
        one_sentence(error)


def test_prepare_makes_stores_of_both_layouts(cohort, tmp_path):
    store = tmp_path / "sus.h5"
    assert prepare.main([str(cohort), str(store), "--layout", "stavanger", "--workers", "1"]) == 0
    with Store(store) as opened:
        assert len(opened) == 5 and opened.info("01_001").scalars["nihss"] == 12 and "test" in opened.splits
        assert {info.group for info in opened} == {"LVO", "Non-LVO", "WIS"}
        assert opened.info("02_003").patient == opened.info("22_003").patient != "02_003"


def test_a_table_of_map_sets(tmp_path, capsys):
    grid = np.diag([-2.0, -2.0, 5.0, 1.0])
    (tmp_path / "one").mkdir()
    for kind in ("cbf", "tmax"):
        write_volume(Volume(np.nan_to_num(maps_of(kind)), grid, MAP_UNITS[kind]), tmp_path / "one" / f"{kind}.nrrd")
    labels = np.where(truth_of() == 255, 2, truth_of() == 170).astype(np.uint8)
    write_volume(Volume(labels, grid), tmp_path / "one_truth.nrrd")
    table = "id,maps,truth,group,split,nihss\none,one,one_truth.nrrd,LVO,train,9\ntwo,gone,,LVO,train,9\n"
    (tmp_path / "cases.csv").write_text(table)
    found = TABLE.find(tmp_path, LayoutOptions())
    assert [f.text for f in found.findings] == ["The maps of 'two' was not found; correct its path in the table."]
    case = TABLE.read(found.sources[0], LayoutOptions())
    assert case.channels == ("cbf", "tmax") and case.scalars == {"nihss": 9.0} and case.image.unit == "maps"
    np.testing.assert_allclose(case.image.array, [np.nan_to_num(maps_of(kind)) for kind in case.channels])
    assert (case.truth == labels).all() and (case.region == np.isfinite(maps_of("cbf"))).all()
    assert case.group == "LVO" and case.split == "train"
