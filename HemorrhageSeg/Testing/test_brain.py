"""Brain extraction: a drawn head in many guises, what is no head, and every real head CT of the development data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from HemorrhageSegLib.brain import extract_brain
from HemorrhageSegLib.checks import require_ct, require_head_ct
from NeuraxisLib.errors import InputError
from NeuraxisLib.measure import volume_ml
from NeuraxisLib.volume import Volume

SPACING = (2.0, 2.0, 5.0)  # column, row, slice in mm
SHAPE = (28, 110, 110)


def ellipsoid(centre_mm, radii_mm) -> np.ndarray:
    """Squared distance from a centre in units of the radii, on the drawn head's grid (k, j, i)."""
    k, j, i = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    at = (k * SPACING[2], j * SPACING[1], i * SPACING[0])
    return sum(((x - c) / r) ** 2 for x, c, r in zip(at, centre_mm, radii_mm))


@pytest.fixture(scope="module")
def head() -> tuple[Volume, np.ndarray]:
    """A drawn head with scalp, skull, brain, ventricle, neck, eyes in fat, and a head holder; and its brain."""
    rng = np.random.default_rng(3)
    centre = (80, 110, 110)
    hu = np.full(SHAPE, -1000.0)
    brain = ellipsoid(centre, (50, 75, 62)) < 1
    hu[(ellipsoid((0, 110, 110), (70, 62, 55)) < 1)] = 55  # neck
    hu[ellipsoid(centre, (62, 88, 75)) < 1] = -90  # fat under the skin
    hu[ellipsoid(centre, (60, 85, 72)) < 1] = 45  # galea, muscle
    hu[ellipsoid(centre, (57, 81, 68)) < 1] = 900
    hu[brain] = 35
    hu[ellipsoid((90, 110, 110), (12, 30, 14)) < 1] = 8
    for side in (-32, 32):
        hu[(ellipsoid((45, 32, 110 + side), (17, 20, 18)) < 1) & ~brain & (hu < 500)] = -80
        hu[(ellipsoid((45, 30, 110 + side), (11, 12, 12)) < 1) & ~brain & (hu < 500)] = 15
    hu[:, 214:216, 30:190] = 120
    hu += rng.normal(0, 4, SHAPE)
    matrix = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    return Volume(hu.astype(np.int16), matrix, "HU"), brain


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_finds_the_drawn_brain(head):
    volume, brain = head
    found = extract_brain(volume)
    assert found.mask.dtype == bool and found.mask.shape == brain.shape
    assert dice(found.mask, brain) > 0.97
    assert not found.mask[volume.array > 500].any()
    assert found.confidence > 0.6 and found.notes == []
    assert volume_ml(brain, volume) == pytest.approx(4 / 3 * np.pi * 50 * 75 * 62 / 1000, rel=0.02)


@pytest.mark.parametrize("cut, note", [(slice(0, 18), "top"), (slice(15, 28), "base")])
def test_a_cut_off_scan_is_searched_and_said(head, cut, note):
    volume, brain = head
    found = extract_brain(replace(volume, array=volume.array[cut]))
    assert dice(found.mask, brain[cut]) > 0.96
    assert found.confidence > 0.6
    assert any(note in sentence for sentence in found.notes)


def test_any_stored_orientation_gives_the_same_mask(head):
    volume, _ = head
    expected = extract_brain(volume).mask
    matrix = volume.ijk_to_ras @ np.array([[-1, 0, 0, 109], [0, 1, 0, 0], [0, 0, -1, 27], [0, 0, 0, 1.0]])
    flipped = extract_brain(replace(volume, array=volume.array[::-1, :, ::-1], ijk_to_ras=matrix))
    np.testing.assert_array_equal(flipped.mask[::-1, :, ::-1], expected)
    sagittal = replace(volume, array=volume.array.transpose(2, 0, 1), ijk_to_ras=volume.ijk_to_ras[:, [1, 2, 0, 3]])
    np.testing.assert_array_equal(extract_brain(sagittal).mask, expected.transpose(2, 0, 1))


def test_tilt_and_unequal_gaps(head):
    volume, brain = head
    shift = np.rint(np.arange(28) * 5 * np.tan(np.deg2rad(20)) / SPACING[1]).astype(int) - 25
    hu = np.stack([np.roll(plane, n, axis=0) for plane, n in zip(volume.array, shift)])
    expected = np.stack([np.roll(plane, n, axis=0) for plane, n in zip(brain, shift)])
    keep = np.r_[0:10, 10:28:2]
    origins = volume.origins_ras - shift[:, None] * volume.row_step_ras
    tilted = replace(volume, array=hu[keep], slice_origins_ras=origins[keep])
    assert not tilted.is_uniform
    found = extract_brain(tilted)
    assert dice(found.mask, expected[keep]) > 0.95
    assert found.confidence > 0.6


def test_an_open_skull_neither_leaks_nor_vanishes(head):
    volume, brain = head
    hole = ellipsoid((95, 110, 110 + 68), (28, 35, 30)) < 1
    hu = np.where(hole & ~brain & (volume.array > 100), 40, volume.array)
    assert np.count_nonzero(hu != volume.array) > 500
    found = extract_brain(replace(volume, array=hu.astype(np.int16)))
    assert dice(found.mask, brain) > 0.95
    assert np.count_nonzero(found.mask & hole & ~brain) < 0.35 * np.count_nonzero(hole & ~brain)
    assert found.confidence > 0.6
    assert any("gap" in sentence for sentence in found.notes)


def test_blood_calcium_and_air_inside_the_skull_stay_in(head):
    volume, brain = head
    depth_mm = ndimage.distance_transform_edt(brain, sampling=SPACING[::-1])
    right, front = np.arange(110) > 75, (np.arange(110) < 40)[:, None]
    crescent = brain & (depth_mm < 12) & right
    air = brain & (depth_mm < 14) & front & ~right & (np.arange(28) > 12)[:, None, None]
    calcium = ellipsoid((90, 140, 120), (6, 5, 5)) < 1
    hu = volume.array.copy()
    hu[crescent], hu[air], hu[calcium] = 98, -950, 350
    found = extract_brain(replace(volume, array=hu)).mask
    assert found[crescent].mean() > 0.99
    assert found[air].mean() > 0.9
    assert found[calcium].mean() > 0.9


def test_padding_noise_thin_skull_and_a_narrow_field(head):
    volume, brain = head
    rng = np.random.default_rng(0)
    padded = volume.array.copy()
    padded[:, :8] = padded[:, :, :8] = -3024
    noisy = volume.array + rng.normal(0, 30, SHAPE).astype(np.float32)
    thin = np.where(volume.array > 500, volume.array * 0.35, volume.array).astype(np.int16)
    for array in (padded, noisy, thin):
        found = extract_brain(replace(volume, array=array))
        assert dice(found.mask, brain) > 0.95 and found.confidence > 0.6
    narrow = extract_brain(replace(volume, array=volume.array[:, :, 30:]))
    assert dice(narrow.mask, brain[:, :, 30:]) > 0.93
    assert "Part of the brain lies outside the scanned field." in narrow.notes


def test_thin_slices_agree_with_thick_ones(head):
    volume, brain = head
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, 2] /= 8
    thin = Volume(np.repeat(volume.array, 8, axis=0), matrix, "HU")
    assert dice(extract_brain(thin).mask, np.repeat(brain, 8, axis=0)) > 0.96


def not_heads() -> dict[str, np.ndarray]:
    """Arrays (k, j, i) that are no head CT."""
    rng = np.random.default_rng(1)
    radius_mm = np.hypot(*np.ogrid[-110:110:2, -110:110:2]) + np.zeros((20, 1, 1))
    tube = np.where(radius_mm < 12, 35, np.where(radius_mm < 18, 800, np.where(radius_mm < 60, 55, -1000)))
    empty_skull = np.where((radius_mm > 70) & (radius_mm < 76), 900, -1000)
    return {
        "noise": rng.normal(0, 500, radius_mm.shape),
        "spine in a neck": tube + rng.normal(0, 5, radius_mm.shape),
        "empty plastic skull": empty_skull,
        "water": np.where(radius_mm < 80, 0, -1000),
        "MR": np.where(radius_mm < 80, rng.normal(400, 40, radius_mm.shape), 0),
    }


@pytest.mark.parametrize("name", not_heads())
def test_what_is_no_head_is_refused(name):
    volume = Volume(not_heads()[name].astype(np.int16), np.diag([-2.0, -2.0, 5.0, 1.0]), "HU")
    assert extract_brain(volume).confidence < 0.3
    with pytest.raises(InputError, match=r"no brain in view|not a head CT") as error:
        require_head_ct(volume)
    assert str(error.value).endswith(".") and str(error.value).count(".") == 1


def test_faults_are_named(head):
    volume, _ = head
    hu = volume.array.astype(np.float32)
    hu[3, 4, 5], hu[6, 7, 8] = np.nan, np.inf
    faults = {
        "2 voxels that are not a number": replace(volume, array=hu),
        "same value": replace(volume, array=np.zeros(SHAPE, np.int16)),
        "modality MR": replace(volume, meta={"modality": "MR"}),
        "two-dimensional": replace(volume, array=volume.array[:1]),
        "time series": replace(volume, array=volume.array[None], frame_times_s=np.zeros(1)),
        "no air": replace(volume, array=np.clip(volume.array, 0, None)),
        "no bone": replace(volume, array=np.clip(volume.array, None, 100)),
    }
    for sentence, faulty in faults.items():
        with pytest.raises(InputError, match=sentence):
            require_ct(faulty)
    require_ct(volume)
    assert require_head_ct(volume).confidence > 0.6


def read(path: Path) -> Volume:
    """A volume of the development data."""
    from NeuraxisLib.files import read_volume

    return read_volume(path)


def test_a_real_head_and_its_planted_blood(shared_data):
    volume = read(shared_data / "planted" / "p59_b.nii.gz")
    truth = read(shared_data / "planted" / "p59_b_truth.nii.gz").array
    found = require_head_ct(volume)
    assert 1500 < volume_ml(found.mask, volume) < 1800
    for bleed in np.unique(truth[truth > 0]):
        assert found.mask[truth == bleed].mean() >= 0.99


def test_a_plastic_head_has_no_brain_in_view(shared_data):
    from NeuraxisLib.dicom import read_series

    phantom = read_series(shared_data / "dicom" / "philips_phantom", allow_gaps=True)
    with pytest.raises(InputError, match="no brain in view"):
        require_head_ct(phantom)


@pytest.mark.slow
def test_every_real_head(shared_data):
    """Every head CT of the development data: trusted, a plausible volume, and no planted blood outside the mask."""
    folders = ("head_ct", "head_ct_training", "planted")
    paths = [p for folder in folders for p in sorted((shared_data / folder).glob("*.nii.gz")) if "truth" not in p.name]
    paths.append(shared_data / "dicom" / "ge_head_tilted")
    assert len(paths) == 37
    bleeding = {}
    for folder in ("head_ct", "head_ct_training"):
        cases = json.loads((shared_data / folder / "ctich_labels.json").read_text())
        bleeding |= {name: {k for ks in case["positive_slices"].values() for k in ks} for name, case in cases.items()}
    for path in paths:
        volume = read(path)
        found = require_head_ct(volume)
        whole = "partial" not in path.name
        assert found.confidence > 0.6, path.name
        assert (700 if whole else 300) < volume_ml(found.mask, volume) < 1950, path.name
        for k in bleeding.get(path.name.split(".")[0], ()):
            assert found.mask[k].any(), f"{path.name}, slice {k}"
        truth = path.with_name(path.name.replace(".nii.gz", "_truth.nii.gz"))
        if truth.exists() and truth != path:
            labels = read(truth).array
            outside = [bleed for bleed in np.unique(labels[labels > 0]) if found.mask[labels == bleed].mean() < 0.99]
            assert outside == [], path.name
