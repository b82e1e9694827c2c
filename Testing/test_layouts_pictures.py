"""Layouts of 8-bit pictures: SLEX-Net's folders and stacks, DR-UNet's slices that are JPEG whatever their name says."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from dicom_series import one_sentence
from PIL import Image

from NeuraxisLib.errors import InputError, NeuraxisError
from Training.layouts import get_layout
from Training.layouts.base import LayoutOptions
from Training.layouts.pictures import SPACING_UNKNOWN, read_picture

PNG, STACKS, DRUNET = get_layout("slexnet-png"), get_layout("slexnet-h5"), get_layout("drunet")
SPACING = LayoutOptions(spacing_mm=(0.42, 0.42, 5.0))


def save(path: Path, array: np.ndarray, kind: str = "PNG", mode: str = "L", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).convert(mode).save(path, kind, **options)
    return path


def brain(slices: int, seed: int = 0, size: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Grey slices with a bright spot, and its mask of 0 and 255."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((slices, size, size), np.uint8)
    for k in range(slices):
        mask[k, 3 + k % 9 : 8 + k % 9, 5:11] = 255 * (k > 0)
    return np.where(mask > 0, 200, rng.integers(40, 120, mask.shape)).astype(np.uint8), mask


# -- SLEX-Net's folders ------------------------------------------------------------------------------------------


def slex_folders(root: Path, patients: dict[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """patient -> slices, as ``brain/PATIENT/N.png`` and ``label/PATIENT/N.png``."""
    made = {}
    for seed, (patient, slices) in enumerate(patients.items()):
        made[patient] = brain(slices, seed)
        for k in range(slices):
            save(root / "brain" / patient / f"{k}.png", made[patient][0][k])
            save(root / "label" / patient / f"{k}.png", made[patient][1][k])
    return made


def test_slices_are_stacked_by_number_and_none_is_dropped(tmp_path):
    made = slex_folders(tmp_path, {"7": 12, "12": 3})
    found = PNG.find(tmp_path, SPACING)
    assert [source.id for source in found.sources] == ["7", "12"] and found.findings == []
    case = PNG.read(found.sources[0], SPACING)
    assert np.array_equal(case.image.array, made["7"][0]) and np.array_equal(case.truth, made["7"][1] // 255)
    assert case.image.unit == "grey" and case.image.spacing_mm == pytest.approx((0.42, 0.42, 5.0)) and case.flags == ()
    steps = case.image.ijk_to_ras[:3, :3]
    assert np.sign(np.diag(steps)).tolist() == [-1, -1, 1]  # left, posterior, up


def test_without_a_spacing_the_case_says_so(tmp_path):
    slex_folders(tmp_path, {"p": 3})
    case = PNG.read(PNG.find(tmp_path, LayoutOptions()).sources[0], LayoutOptions())
    assert case.flags == (SPACING_UNKNOWN,) and case.image.spacing_mm == (1, 1, 1)


def test_patients_alone_have_images_without_masks(tmp_path):
    slex_folders(tmp_path / "x", {"p": 3})
    case = PNG.read(PNG.find(tmp_path / "x" / "brain", SPACING).sources[0], SPACING)
    assert case.truth is None and case.image.array.shape == (3, 24, 24)


def test_every_fault_of_the_folders_is_told_by_patient(tmp_path):
    slex_folders(tmp_path, {"good": 4, "hole": 5, "unmasked": 3, "half": 4, "named": 2})
    for kind in ("brain", "label"):
        (tmp_path / kind / "hole" / "2.png").unlink()
    (tmp_path / "label" / "half" / "3.png").unlink()
    (tmp_path / "brain" / "named" / "1.png").rename(tmp_path / "brain" / "named" / "one.png")
    for path in (tmp_path / "label" / "unmasked").iterdir():
        path.unlink()
    (tmp_path / "label" / "unmasked").rmdir()
    found = PNG.find(tmp_path, SPACING)
    assert [source.id for source in found.sources] == ["good"]
    told = {finding.cases[0]: finding.text for finding in found.findings if finding.fault}
    assert told.keys() == {"hole", "half", "unmasked", "named"}
    assert "no slice 2" in told["hole"] and "no mask of slice 3" in told["half"]
    assert "no mask folder" in told["unmasked"]


def test_slices_of_different_sizes_are_no_volume(tmp_path):
    slex_folders(tmp_path, {"p": 3})
    save(tmp_path / "brain" / "p" / "1.png", np.zeros((30, 24)))
    with pytest.raises(InputError, match="differ in size \\('1.png' from '0.png'\\)"):
        PNG.read(PNG.find(tmp_path, SPACING).sources[0], SPACING)


# -- SLEX-Net's stacks -------------------------------------------------------------------------------------------


def slex_stacks(folder: Path, subject: int, images: np.ndarray, masks: np.ndarray, centres: range) -> None:
    """Three slices per file, as the released converter writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for centre in centres:
        slices = [centre - 1, centre, centre + 1]
        with h5py.File(folder / f"{subject}_{centre}.h5", "w") as file:
            file["subject"], file["slice"] = subject, slices
            file["data"], file["label"] = images[slices].transpose(1, 2, 0), masks[slices].transpose(1, 2, 0)


def test_stacks_become_the_volumes_that_they_were_cut_from(tmp_path):
    train, test = brain(14, 1), brain(12, 2)
    slex_stacks(tmp_path / "data_train", 3, *train, range(1, 13))
    slex_stacks(tmp_path / "data_test", 3, *test, range(1, 11))
    found = STACKS.find(tmp_path, SPACING)
    told = [(source.id, source.patient, source.split) for source in found.sources]
    # Subjects are counted from 0 in each run of the converter: these are two people.
    assert told == [("test/3", "test/3", "test"), ("train/3", "train/3", "train")]
    for source, (images, masks) in zip(found.sources, (test, train)):
        case = STACKS.read(source, SPACING)
        assert np.array_equal(case.image.array, images) and np.array_equal(case.truth, masks // 255)
        assert case.provenance["first_slice"] == 0


def test_stacks_with_lesions_only_leave_runs_of_slices(tmp_path):
    images, masks = brain(20)
    slex_stacks(tmp_path, 0, images, masks, range(2, 5))
    slex_stacks(tmp_path, 0, images, masks, range(11, 13))
    found = STACKS.find(tmp_path, SPACING)
    assert [(source.id, source.patient) for source in found.sources] == [("0/1-5", "0"), ("0/10-13", "0")]
    second = STACKS.read(found.sources[1], SPACING)
    assert np.array_equal(second.image.array, images[10:14]) and second.provenance["first_slice"] == 10


def test_stacks_that_contradict_each_other_or_are_damaged_are_faults(tmp_path):
    images, masks = brain(8)
    slex_stacks(tmp_path, 0, images, masks, range(1, 7))
    with h5py.File(tmp_path / "0_4.h5", "r+") as file:
        file["data"][0, 0, 0] += 1
    (tmp_path / "1_1.h5").write_bytes((tmp_path / "0_1.h5").read_bytes()[:300])
    found = STACKS.find(tmp_path, SPACING)
    assert [finding.cases for finding in found.findings] == [("1_1",)] and "damaged" in found.findings[0].text
    with pytest.raises(InputError, match="Slice 3 differs between its stacks") as caught:
        STACKS.read(found.sources[0], SPACING)
    one_sentence(caught)


# -- DR-UNet's slices --------------------------------------------------------------------------------------------


def drunet(folder: Path, names: list[str], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images, masks = brain(len(names) + 1, seed)
    for name, image, mask in zip(names, images[1:], masks[1:]):
        save(folder / "images" / f"{name}.png", image)
        save(folder / "masks" / f"{name}.png", mask)
    return images[1:], masks[1:]


def test_slices_are_cases_and_say_that_patient_and_spacing_are_unknown(tmp_path):
    images, masks = drunet(tmp_path, ["2", "10"])
    found = DRUNET.find(tmp_path, LayoutOptions())
    assert [source.id for source in found.sources] == ["2", "10"]
    assert [finding.kind for finding in found.findings] == ["patient"] and not found.findings[0].fault
    case = DRUNET.read(found.sources[1], LayoutOptions())
    assert np.array_equal(case.image.array, images[1:]) and np.array_equal(case.truth, masks[1:] // 255)
    assert case.flags == ("patient unknown", SPACING_UNKNOWN) and case.image.unit == "grey"


def test_a_table_says_whose_the_slices_are(tmp_path):
    drunet(tmp_path / "train", ["1", "2"])
    drunet(tmp_path / "test", ["1"], 5)
    (tmp_path / "who.csv").write_text("id;patient\n1;A\n2;A\n")
    options = LayoutOptions(patients=tmp_path / "who.csv", spacing_mm=(0.5, 0.5, 5))
    found = DRUNET.find(tmp_path, options)
    told = [(source.id, source.patient, source.split) for source in found.sources]
    assert told == [("train/1", "A", "train"), ("train/2", "A", "train"), ("test/1", "A", "test")]
    assert found.findings == [] and DRUNET.read(found.sources[0], options).flags == ()


def test_jpeg_named_png_and_grey_saved_in_colour_are_read_as_what_they_are(tmp_path):
    image = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    for mode in ("L", "RGB"):
        path = save(tmp_path / f"{mode}.png", image, "JPEG", mode, quality=95)
        assert path.read_bytes()[:2] == b"\xff\xd8"
        back = read_picture(path)
        assert back.dtype == np.uint8 and np.abs(back.astype(int) - image).max() <= 3


def test_soft_masks_are_cut_at_half_with_a_warning(tmp_path):
    drunet(tmp_path, ["1"])
    mask = np.zeros((24, 24))
    mask[4:8, 4:8], mask[3, 4:8], mask[8, 4:8] = 255, 100, 160
    save(tmp_path / "masks" / "1.png", mask)
    case = DRUNET.read(DRUNET.find(tmp_path, LayoutOptions()).sources[0], LayoutOptions())
    assert case.truth.sum() == 20 and "8 pixels between 0 and 255" in case.provenance["warnings"][0]


def test_pictures_that_cannot_be_used_are_refused_in_one_sentence(tmp_path):
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[2, 2] = (200, 0, 0)
    save(tmp_path / "colour.png", colour, mode="RGB")
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "deep.png")
    save(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 255, (60, 60)))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    (tmp_path / "text.png").write_text("no picture")
    words = {"colour": "is in colours", "deep": "more than 8 bits", "cut": "damaged", "text": "not a picture"}
    for name, word in words.items():
        with pytest.raises(InputError, match=word) as caught:
            read_picture(tmp_path / f"{name}.png")
        one_sentence(caught)


def test_names_without_number_missing_masks_and_other_sizes_are_faults(tmp_path):
    drunet(tmp_path, ["1", "2", "3"])
    (tmp_path / "masks" / "2.png").unlink()
    save(tmp_path / "images" / "case.png", np.zeros((9, 9)))
    save(tmp_path / "masks" / "3.png", np.zeros((9, 9)))
    found = DRUNET.find(tmp_path, LayoutOptions())
    assert {finding.cases for finding in found.findings if finding.fault} == {("2",), ("case",)}
    assert [source.id for source in found.sources] == ["1", "3"]
    with pytest.raises(NeuraxisError, match="does not have the size of its picture"):
        DRUNET.read(found.sources[1], LayoutOptions())
