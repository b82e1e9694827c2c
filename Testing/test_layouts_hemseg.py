"""HemSeg's layouts: the jsonl lists of both releases, RSNA files by id, NIfTI trees, pairing by name, leaks."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_series import LESION_HU, LESION_ML, MATRIX, lesion_ml, new_uid, one_sentence, series

from NeuraxisLib.dicom import read_series
from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from Training.layouts import LAYOUTS, get_layout
from Training.layouts.base import LayoutOptions
from Training.layouts.grids import onto_grid
from Training.layouts.hemseg import read_annotations
from Training.layouts.hemseg_dicom import together

DICOM, TREE = get_layout("hemseg-dicom"), get_layout("hemseg")
#: Every 6 mm over the head, tilted as most of HemSeg's scans are.
HEIGHTS = np.arange(-84.0, 85.0, 6.0)


def save_rsna(images: list, folder: Path) -> list[str]:
    """Files named as RSNA's, ``ID_<sop>.dcm``; returns the SOP ids in spatial order, without ``ID_``."""
    folder.mkdir(parents=True, exist_ok=True)
    sops = [f"{random.Random(image.SOPInstanceUID).getrandbits(36):09x}" for image in images]
    for sop, image in zip(sops, images):
        image.save_as(folder / f"ID_{sop}.dcm", enforce_file_format=True)
    return sops


def as_released_mask(image: Volume) -> Volume:
    """The lesion as HemSeg's masks have it: the image's lattice, but a matrix that lost the shear of the tilt."""
    step = image.normal_ras * image.spacing_mm[2]
    matrix = image.ijk_to_ras.copy()
    matrix[:3, 2] = step
    return Volume((np.abs(image.array.astype(int) - LESION_HU) < 15).astype(np.int16), matrix)


def line(release: int, scan: str, patient: str, sops: list[str]) -> dict:
    """A line of the list of HemSeg-200 or HemSeg-500; the running number is sorted as text, as they have it."""
    order = sorted(range(len(sops)), key=str)
    if release == 200:
        return {"patient": patient, "scan_": scan, "slice_list": [sops[number] for number in order]}
    slices = {str(at): f"ID_{sops[number]}" for at, number in enumerate(order)}
    return {"patient_name": patient, "scan_name": scan, "slice_list": slices}


def write_jsonl(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return path


@pytest.fixture(scope="module")
def rsna(tmp_path_factory) -> tuple[Path, list[str], list[str]]:
    """A tilted scan, and a second series of the same study with fewer slices, in one folder; their SOP ids."""
    folder = tmp_path_factory.mktemp("rsna") / "stage_2_train"
    main = save_rsna(series(HEIGHTS, tilt_deg=15.0), folder)
    return folder, main, save_rsna(series(HEIGHTS[::3], uid=new_uid()), folder)


@pytest.fixture(scope="module")
def image(rsna) -> Volume:
    folder, main, _ = rsna
    with together(tuple(folder / f"ID_{sop}.dcm" for sop in main)) as own:
        return read_series(own)


@pytest.mark.parametrize("release", [200, 500])
def test_a_scan_of_several_series_is_read_by_its_list_and_mask(tmp_path, rsna, image, release):
    folder, main, other = rsna
    path = write_jsonl(tmp_path / "info.jsonl", [line(release, "0a1b2c3d4e", "ID_1", [*other, *main])])
    (tmp_path / "labels" / "test" / "label").mkdir(parents=True)
    write_volume(as_released_mask(image), tmp_path / "labels" / "test" / "label" / "0a1b2c3d4e.nii.gz")
    options = LayoutOptions(annotations=path, truth=tmp_path / "labels")
    found = DICOM.find(folder, options)
    assert found.findings == [] and len(found.sources) == 1
    case = DICOM.read(found.sources[0], options)
    assert (case.id, case.patient, case.split) == ("0a1b2c3d4e", "ID_1", "test")
    assert case.image.unit == "HU" and case.image.is_sheared and len(case.image.array) == len(HEIGHTS)
    assert np.array_equal(case.image.array, image.array)  # in the order of their positions, not of the list
    assert np.array_equal(case.truth > 0, np.abs(image.array.astype(int) - LESION_HU) < 15)
    marked = case.truth.sum(axis=(1, 2)) @ case.image.voxel_volumes_ml
    assert marked == pytest.approx(LESION_ML, rel=0.03) and marked == pytest.approx(lesion_ml(case.image))
    assert "matched slice by slice" in " ".join(case.provenance["warnings"])


def test_series_with_as_many_slices_are_told_apart_by_place(tmp_path, rsna, image):
    _, main, _ = rsna
    folder = tmp_path / "rsna"
    shutil.copytree(rsna[0], folder)
    lower = save_rsna(series(HEIGHTS - 40, tilt_deg=15.0, uid=new_uid()), folder)
    (tmp_path / "labels").mkdir()
    write_volume(as_released_mask(image), tmp_path / "labels" / "s.nii.gz")
    path = write_jsonl(tmp_path / "info.jsonl", [line(500, "s", "ID_1", [*lower, *main])])
    options = LayoutOptions(annotations=path, truth=tmp_path / "labels")
    case = DICOM.read(DICOM.find(folder, options).sources[0], options)
    assert np.allclose(case.image.ijk_to_ras, image.ijk_to_ras)


def test_dicom_faults_are_told_by_scan(tmp_path, rsna, image):
    folder, main, other = rsna
    lines = [line(200, "good", "ID_1", main), line(200, "lacking", "ID_2", [*main, "f00", "f01"])]
    lines += [line(200, "short", "ID_3", other), line(200, "unmasked", "ID_4", main)]
    path = write_jsonl(tmp_path / "info.jsonl", lines)
    (tmp_path / "labels").mkdir()
    for scan in ("good", "lacking", "short", "stranger"):
        write_volume(as_released_mask(image), tmp_path / "labels" / f"{scan}.nii.gz")
    options = LayoutOptions(annotations=path, truth=tmp_path / "labels")
    found = DICOM.find(folder, options)
    told = {finding.cases: finding for finding in found.findings}
    assert told.keys() == {("lacking",), ("stranger",), ("unmasked",)}
    assert "2 of the 31 images" in told["lacking",].text and not told["unmasked",].fault
    assert [source.id for source in found.sources] == ["good", "short"]
    with pytest.raises(InputError, match=f"mask has {len(HEIGHTS)} slices, but the listed series have {len(other)}"):
        DICOM.read(found.sources[1], options)
    with pytest.raises(InputError, match="--annotations"):
        DICOM.find(folder, LayoutOptions())


def test_lists_that_are_none_are_refused_by_line(tmp_path):
    path = tmp_path / "info.jsonl"
    for text in ('{"patient": "a"}', "[]", "{", '{"patient": "a", "scan_": "b", "slice_list": 3}'):
        path.write_text('{"patient": "a", "scan_": "b", "slice_list": ["x"]}\n\n' + text)
        with pytest.raises(InputError) as caught:
            read_annotations(path)
        assert one_sentence(caught).startswith("Line 3 of 'info.jsonl'")


# -- NIfTI trees -------------------------------------------------------------------------------------------------


def head(value: int = 0) -> Volume:
    """A small CT that looks like one, with a bright spot that tells it from others."""
    array = np.full((6, 20, 20), -1000, np.int16)
    array[:, 4:16, 4:16] = 30
    array[:, 4, 4:16] = 900
    array[2, 8, 8] = 60 + value
    return Volume(array, np.diag([-8.0, -8.0, 5.0, 1.0]))


def tree(root: Path, scans: dict[str, str]) -> Path:
    """scan -> split, as images and masks; the mask marks the scan's own spot."""
    for number, (scan, split) in enumerate(scans.items()):
        for kind, volume in (("image", head(number)), ("label", spot(head()))):
            folder = root / split / kind
            folder.mkdir(parents=True, exist_ok=True)
            write_volume(volume, folder / f"{scan}.nii.gz")
    return root


def spot(volume: Volume) -> Volume:
    truth = np.zeros(volume.array.shape, np.int16)
    truth[2, 8, 8] = 1
    return volume.like(truth)


def write_list(path: Path, rows: dict[str, int]) -> None:
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows(
            [("filename", "label"), *((f"{scan}.nii.gz", kind) for scan, kind in rows.items())]
        )


def test_images_and_masks_are_paired_by_name(tmp_path):
    """The released scripts pair by place: with one image missing, every later mask would go to another's image."""
    root = tree(tmp_path, {"a": "train", "b": "train", "c": "train", "d": "test"})
    (root / "train" / "image" / "a.nii.gz").unlink()
    (root / "train" / "label" / "c.nii.gz").unlink()
    found = TREE.find(root, LayoutOptions())
    assert {source.id: source.split for source in found.sources} == {"b": "train", "d": "test"}
    faults = {finding.cases: finding.text for finding in found.findings if finding.fault}
    assert faults.keys() == {("a",), ("c",)} and "mask but no image" in faults["a",]
    case = TREE.read(found.sources[0], LayoutOptions())
    assert case.image.array[2, 8, 8] == 61 and case.image.unit == "HU" and case.truth.sum() == 1


def test_patients_groups_and_splits_come_from_the_release_s_lists(tmp_path):
    root = tree(tmp_path, {"a": "train", "b": "train", "c": "val", "d": "test", "e": "test"})
    write_jsonl(root / "info.jsonl", [line(200, scan, who, ["0"]) for scan, who in zip("abcd", "PQRP")])
    write_list(root / "train_set.csv", {"a": 0, "d": 1})
    write_list(root / "val_set.csv", {"c": 0, "b": 1, "z": 1})
    found = TREE.find(root, LayoutOptions())
    told = {source.id: (source.patient, source.split, source.group) for source in found.sources}
    assert told == {
        "a": ("P", "train", "IPH"), "b": ("Q", "val", "IVH"), "c": ("R", "val", "IPH"), "d": ("P", "train", "IVH"),
        "e": ("e", "test", ""),
    }  # fmt: skip
    words = " ".join(finding.text for finding in found.findings)
    assert "2 scans lie in another folder than their list says" in words and "1 listed scans are not there" in words
    assert "'e' is not in the jsonl list" in words and not any(finding.fault for finding in found.findings)


def test_a_scan_in_two_lists_is_a_leak(tmp_path):
    root = tree(tmp_path, {"a": "train"})
    write_list(root / "train_set.csv", {"a": 0})
    write_list(root / "test_set.csv", {"a": 0})
    leaks = [finding for finding in TREE.find(root, LayoutOptions()).findings if finding.kind == "leak"]
    assert len(leaks) == 1 and leaks[0].fault and leaks[0].cases == ("a",)


def test_another_layout_is_refused(tmp_path):
    (tmp_path / "scans").mkdir()
    with pytest.raises(InputError, match="does not have the layout that was named"):
        TREE.find(tmp_path, LayoutOptions())
    with pytest.raises(InputError, match="no layout 'hemsek'"):
        get_layout("hemsek")
    assert all(callable(get_layout(name).find) and callable(get_layout(name).read) for name in LAYOUTS)


# -- a mask onto its image's grid --------------------------------------------------------------------------------


def test_a_mask_with_turned_axes_is_brought_back_without_resampling():
    """The same grid, stored with other axes first and counted from other ends."""
    volume = head()
    truth = (np.random.default_rng(0).random(volume.array.shape) < 0.3).astype(np.uint8)
    mask = volume.like(truth)
    turned = Volume(truth.transpose(2, 0, 1)[::-1, :, ::-1], turn(mask, (2, 0, 1), (0, 2)))
    array, warnings = onto_grid(turned, volume)
    assert np.array_equal(array, truth) and warnings == []


def turn(volume: Volume, axes: tuple[int, int, int], flipped: tuple[int, ...]) -> np.ndarray:
    """The matrix of the volume after ``transpose(axes)`` and flips of the new (k, j, i) axes."""
    matrix = np.eye(4)
    matrix[:3, 3] = volume.ijk_to_ras[:3, 3]
    shape = [volume.array.shape[axis] for axis in axes]
    for new, old in enumerate(axes):
        step = volume.ijk_to_ras[:3, 2 - old]
        if new in flipped:
            matrix[:3, 3] += step * (shape[new] - 1)
            step = -step
        matrix[:3, 2 - new] = step
    return matrix


def test_a_mask_elsewhere_is_a_geometry_fault(image):
    mask = as_released_mask(image)
    with pytest.raises(GeometryError, match="does not lie where its image lies"):
        onto_grid(mask, image)  # not known to be drawn on this series
    array, warnings = onto_grid(mask, image, same_slices=True)
    assert np.array_equal(array, mask.array) and len(warnings) == 1
    with pytest.raises(GeometryError, match=f"{MATRIX} x {MATRIX} x 5 voxels where"):
        onto_grid(Volume(mask.array[:5], mask.ijk_to_ras), image, same_slices=True)
    wider = mask.ijk_to_ras @ np.diag([1.2, 1.2, 1, 1])
    with pytest.raises(GeometryError):
        onto_grid(Volume(mask.array, wider), image, same_slices=True)
