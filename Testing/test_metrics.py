"""The metrics of an evaluation: by hand where a case can be worked out, else against a second library."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.volume import Volume
from Training.evaluation import bootstrap
from Training.evaluation.agreement import VolumeAgreement
from Training.evaluation.calibration import Calibration, area_under_curve, uncertainty_error
from Training.evaluation.overlap import Overlap, slice_overlaps
from Training.evaluation.surface import (
    border_voxels,
    normalised_surface_distance,
    surface_distances,
    surface_elements,
)

SPACING_MM = (0.5, 0.7, 5.0)  # columns, rows, slices


def grid(shape: tuple[int, int, int], spacing_mm=SPACING_MM, tilt: float = 0.0) -> Volume:
    """A grid without content; ``tilt`` shifts each slice by that many mm along the rows' direction."""
    matrix = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    matrix[1, 2] = tilt
    return Volume(np.zeros(shape, np.uint8), matrix)


def blobs(seed: int, shape=(12, 60, 60)) -> tuple[np.ndarray, np.ndarray]:
    """Two irregular masks of several parts that overlap in part."""
    generator = np.random.default_rng(seed)
    field = gaussian_filter(generator.normal(size=shape), (1, 5, 5))
    other = field + 0.3 * gaussian_filter(generator.normal(size=shape), (1, 5, 5))
    return field > 0.3 * field.max(), other > 0.25 * other.max()


# -- overlap --------------------------------------------------------------------------------------------------


def test_overlap_by_hand() -> None:
    # 2 hits, 1 false alarm, 3 missed, 4 rightly left
    prediction = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    truth = np.array([1, 7, 0, 1, 1, 1, 0, 0, 0, 0])  # any value but 0 is marked
    overlap = Overlap.of(prediction, truth)
    assert (overlap.tp, overlap.fp, overlap.fn, overlap.tn) == (2, 1, 3, 4)
    wanted = {
        "dice": 4 / 8, "iou": 2 / 6, "voe": 4 / 6, "rvd": -2 / 5, "rvd_abs": 2 / 5, "sensitivity": 2 / 5,
        "specificity": 4 / 5, "precision": 2 / 3, "accuracy": 6 / 10,
    }  # fmt: skip
    assert overlap.measures() == pytest.approx(wanted)
    assert overlap.measures(1e-10) == pytest.approx(wanted, abs=1e-9)


def test_empty_masks_have_stated_values() -> None:
    both, miss, false_alarm = (Overlap(0, 0, 0, 9), Overlap(0, 0, 4, 5), Overlap(0, 3, 0, 6))
    assert [o.emptiness for o in (both, miss, false_alarm, Overlap(1, 0, 0, 8))] == ["both", "prediction", "truth", ""]
    names = ("dice", "iou", "voe", "rvd", "sensitivity", "precision")
    assert [both.measures()[name] for name in names] == [1, 1, 0, 0, 1, 1]
    assert [miss.measures()[name] for name in names] == [0, 0, 1, -1, 0, 0]
    measures = false_alarm.measures()
    assert [measures[name] for name in ("dice", "iou", "voe", "precision")] == [0, 0, 1, 0]
    assert math.isnan(measures["sensitivity"]) and math.isnan(measures["rvd"])
    # 1e-5 in Dice alone leaves what is undefined undefined
    assert both.measures(0, 1e-5)["dice"] == 0 and math.isnan(false_alarm.measures(0, 1e-5)["rvd"])
    # the released rule: with 1e-10 in the denominator two empty masks score 0
    assert both.measures(1e-10)["dice"] == 0 and both.measures(1e-10)["sensitivity"] == 0


def test_overlap_refuses_other_shapes() -> None:
    with pytest.raises(GeometryError, match="does not fit"):
        Overlap.of(np.zeros((2, 3)), np.zeros((3, 2)))


def test_slices_without_truth_are_not_among_the_lesion_slices() -> None:
    truth, prediction = np.zeros((3, 2, 2)), np.ones((3, 2, 2))
    truth[1, 0] = 1
    assert slice_overlaps(prediction, truth) == {1: Overlap(2, 2, 0, 0)}


# -- surfaces -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("seed", range(3))
def test_hausdorff_equals_monai_and_simpleitk(seed: int) -> None:
    metrics = pytest.importorskip("monai.metrics")
    import torch

    prediction, truth = blobs(seed)
    tensors = [torch.tensor(mask)[None, None].float() for mask in (prediction, truth)]
    for unit, spacing in (("mm", SPACING_MM[::-1]), ("voxels", None)):
        distances = surface_distances(prediction, truth, grid(truth.shape), unit)
        for percentile in (100, 95):
            theirs = metrics.compute_hausdorff_distance(
                *tensors, include_background=True, percentile=percentile, spacing=spacing
            )
            assert distances.hausdorff(percentile) == pytest.approx(float(theirs), rel=1e-5)
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (prediction, truth)]
    for image in images:
        image.SetSpacing(SPACING_MM)
    itk = sitk.HausdorffDistanceImageFilter()
    itk.Execute(*images)
    mm = surface_distances(prediction, truth, grid(truth.shape)).hausdorff()
    assert mm == pytest.approx(itk.GetHausdorffDistance(), rel=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("seed", range(3))
def test_surface_share_equals_monai_s_by_area(seed: int) -> None:
    metrics = pytest.importorskip("monai.metrics")
    pytest.importorskip("skimage")
    import torch

    prediction, truth = blobs(seed)
    tensors = [torch.tensor(mask)[None, None].float() for mask in (prediction, truth)]
    tolerances = (0.42, 1.0, 2.0, 6.0)
    ours = normalised_surface_distance(prediction, truth, grid(truth.shape), tolerances)
    for tolerance, found in zip(tolerances, ours):
        theirs = metrics.compute_surface_dice(
            *tensors, [tolerance], include_background=True, spacing=SPACING_MM[::-1], use_subvoxels=True
        )
        assert found == pytest.approx(float(theirs), abs=2e-3)


def test_distances_by_hand() -> None:
    truth, prediction = np.zeros((2, 6, 10, 20), bool)
    truth[1:4, 2:6, 3:9] = True
    prediction[1:4, 2:6, 5:11] = True  # two columns on: 1 mm
    distances = surface_distances(prediction, truth, grid(truth.shape))
    assert distances.hausdorff() == pytest.approx(1.0)
    assert surface_distances(prediction, truth, grid(truth.shape), "voxels").hausdorff() == 2
    prediction = np.roll(truth, 1, axis=0)  # one slice up: 5 mm, a single voxel
    assert surface_distances(prediction, truth, grid(truth.shape)).hausdorff() == pytest.approx(5.0)
    assert surface_distances(truth, truth, grid(truth.shape)).hausdorff() == 0
    assert normalised_surface_distance(truth, truth, grid(truth.shape), (0.0,)) == [1.0]


def test_percentiles_are_directed() -> None:
    """One stray voxel among 20: it is beyond the 95th percentile one way, and not on the other's surface at all."""
    truth, prediction = np.zeros((2, 3, 5, 40), bool)
    truth[1, 2, :20] = True
    prediction[1, 2, :20] = prediction[1, 2, 35] = True
    distances = surface_distances(prediction, truth, grid(truth.shape))
    assert distances.hausdorff() == pytest.approx(16 * 0.5)
    assert distances.hausdorff(95) == 0
    assert len(distances.to_truth) == 21 and len(distances.to_prediction) == 20


@pytest.mark.parametrize("no_surface", ["diagonal", "infinite", "dropped"])
def test_a_missing_surface_has_a_stated_distance(no_surface: str) -> None:
    truth, nothing = np.zeros((2, 3, 4, 5), bool)
    truth[1, 1, 1] = True
    diagonal = math.sqrt(10**2 + (3 * 0.7) ** 2 + (4 * 0.5) ** 2)
    wanted = {"diagonal": diagonal, "infinite": math.inf, "dropped": math.nan}[no_surface]
    for pair in ((nothing, truth), (truth, nothing)):
        found = surface_distances(*pair, grid(truth.shape)).hausdorff(95, no_surface)
        assert found == pytest.approx(wanted, nan_ok=True)
        assert normalised_surface_distance(*pair, grid(truth.shape), (1.0,)) == [0.0]
    both = surface_distances(nothing, nothing, grid(truth.shape))
    assert both.hausdorff(95, no_surface) == pytest.approx(math.nan if no_surface == "dropped" else 0, nan_ok=True)
    assert normalised_surface_distance(nothing, nothing, grid(truth.shape), (1.0,)) == [1.0]


def test_tilted_slices_are_measured_where_they_lie() -> None:
    """A column straight up in the patient: on a tilted grid its pixels move from slice to slice."""
    shape, tilt = (6, 40, 8), 1.4  # two rows of 0.7 mm per slice
    upright, sheared = np.zeros((2, *shape), bool)
    for k in range(1, 5):
        upright[k, 20:24, 3:5] = True
        sheared[k, 20 + 2 * k : 24 + 2 * k, 3:5] = True  # back by what the shear moves forward
    straight, tilted = grid(shape), grid(shape, tilt=tilt)
    assert tilted.is_sheared and not straight.is_sheared
    other = np.zeros(shape, bool)
    other[2:4, 20:24, 3:5] = True
    other_sheared = np.zeros(shape, bool)
    for k in (2, 3):
        other_sheared[k, 20 + 2 * k : 24 + 2 * k, 3:5] = True
    ours = surface_distances(other_sheared, sheared, tilted).hausdorff()
    assert ours == pytest.approx(surface_distances(other, upright, straight).hausdorff()) == pytest.approx(5.0)
    # ignoring the shear, an upright-looking column would be called identical; in the patient it leans
    leaning = surface_distances(upright, sheared, tilted).hausdorff()
    assert leaning == pytest.approx(surface_distances(upright, sheared, straight).hausdorff(), rel=0.2) and leaning > 3


@pytest.mark.parametrize("tilt", [0.0, 2.0])
def test_area_of_a_box_by_hand(tilt: float) -> None:
    """Marching cubes of a box: rectangles between voxel centres, bevelled edges, a triangle at each corner."""
    pytest.importorskip("skimage")
    mask, volume = np.zeros((6, 12, 12), bool), grid((6, 12, 12), tilt=tilt)
    mask[2:4, 3:9, 4:8] = True
    counts, steps = (4, 6, 2), volume.ijk_to_ras[:3, :3].T  # columns, rows, slices

    def area(*sides: np.ndarray) -> float:
        return float(np.linalg.norm(np.cross(*sides)))

    total = 0.0
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        total += 2 * area((counts[a] - 1) * steps[a], (counts[b] - 1) * steps[b])
        total += sum(2 * area((counts[a] - 1) * steps[a], (steps[b] + sign * steps[c]) / 2) for sign in (1, -1))
    for signs in np.ndindex(2, 2, 2):
        x, y, z = ((2 * sign - 1) * step / 2 for sign, step in zip(signs, steps))
        total += area(y - x, z - x) / 2
    centres, areas = surface_elements(mask, volume)
    assert areas.sum() == pytest.approx(total)
    assert len(centres) == len(areas) == 5 * 7 * 3 - 3 * 5 * 1


def uneven(shape: tuple[int, int, int]) -> Volume:
    """Slices at gaps of 4 mm below and 8 mm above the middle."""
    gaps = np.where(np.arange(shape[0] - 1) < shape[0] // 2, 4.0, 8.0)
    origins = np.zeros((shape[0], 3))
    origins[1:, 2] = np.cumsum(gaps)
    volume = grid(shape)
    return Volume(volume.array, volume.ijk_to_ras, slice_origins_ras=origins)


def test_unequal_gaps_are_measured_where_the_slices_lie() -> None:
    shape = (6, 8, 8)
    volume, truth, prediction = uneven(shape), *np.zeros((2, *shape), bool)
    truth[1, 3:6, 3:6], prediction[2, 3:6, 3:6] = True, True
    assert surface_distances(prediction, truth, volume).hausdorff() == pytest.approx(4.0)
    assert normalised_surface_distance(prediction, truth, volume, (4.5,)) == [1.0]
    truth, prediction = np.zeros((2, *shape), bool)
    truth[3, 3:6, 3:6], prediction[4, 3:6, 3:6] = True, True
    assert surface_distances(prediction, truth, volume).hausdorff() == pytest.approx(8.0)
    near, far = normalised_surface_distance(prediction, truth, volume, (4.5, 8.0))
    assert near < 0.9 and far == 1.0


def test_borders_are_marked_voxels_with_an_unmarked_neighbour_at_a_face() -> None:
    mask = np.zeros((5, 5, 5), bool)
    mask[1:4, 1:4, 1:4] = True
    assert len(border_voxels(mask)) == 26  # all but the middle
    assert len(border_voxels(np.ones((3, 3, 3), bool))) == 26  # the image's edge is a border, too


def test_surface_refuses_what_does_not_fit() -> None:
    with pytest.raises(GeometryError, match="does not fit"):
        surface_distances(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), grid((2, 2, 2)))
    with pytest.raises(InputError, match="negative"):
        normalised_surface_distance(*np.zeros((2, 2, 2, 2)), grid((2, 2, 2)), (-1.0,))


# -- volumes --------------------------------------------------------------------------------------------------


def test_volume_agreement_by_hand() -> None:
    measured, true = np.array([12.0, 18.0, 33.0]), np.array([10.0, 20.0, 30.0])  # differences 2, -2, 3
    found = VolumeAgreement.of(measured, true)
    sd = math.sqrt(((2 - 1) ** 2 + (-2 - 1) ** 2 + (3 - 1) ** 2) / 2)
    assert (found.n, found.bias_ml, found.mae_ml) == (3, 1.0, pytest.approx(7 / 3))
    assert found.sd_ml == pytest.approx(sd) and found.rmse_ml == pytest.approx(math.sqrt(17 / 3))
    assert (found.low_limit_ml, found.high_limit_ml) == pytest.approx((1 - 1.96 * sd, 1 + 1.96 * sd))
    assert found.r2_identity == pytest.approx(1 - 17 / 200)
    # line through (10, 12), (20, 18), (30, 33): slope 1.05, squared correlation 210^2 / (200 * 234)
    assert found.r2 == pytest.approx(210**2 / (200 * 234))


def test_a_constant_bias_shows_in_one_r2_only() -> None:
    true = np.array([1.0, 5.0, 9.0])
    found = VolumeAgreement.of(true + 4, true)
    assert found.r2 == pytest.approx(1) and found.r2_identity == pytest.approx(1 - 48 / 32) and found.sd_ml == 0


def test_too_few_volumes_leave_numbers_undefined() -> None:
    one = VolumeAgreement.of([2.0], [1.0])
    assert one.bias_ml == 1 and math.isnan(one.sd_ml) and math.isnan(one.r2)
    assert VolumeAgreement.of([], []).n == 0 and math.isnan(VolumeAgreement.of([], []).bias_ml)


# -- calibration ----------------------------------------------------------------------------------------------


def test_calibration_by_hand() -> None:
    probability, truth = np.array([0.05, 0.05, 0.62, 0.68, 1.0]), np.array([0, 1, 1, 0, 1])
    sums = Calibration.of(probability, truth)
    # bins 0 (2 voxels, mean 0.05, half lesion), 6 (mean 0.65, half) and 9 (1.0, all)
    assert sums.ece == pytest.approx((2 * 0.45 + 2 * 0.15 + 0) / 5)
    assert sums.nll == pytest.approx(-np.log([0.95, 0.05, 0.62, 0.32, 1.0]).mean())
    assert sums.brier == pytest.approx(np.mean([0.05**2, 0.95**2, 0.38**2, 0.68**2, 0]))
    confidence, share, counts = sums.reliability()
    assert counts.tolist() == [2, 0, 0, 0, 0, 0, 2, 0, 0, 1]
    assert (confidence[6], share[6]) == pytest.approx((0.65, 0.5)) and math.isnan(share[3])


def test_pooled_calibration_is_that_of_all_voxels_not_the_mean_of_cases() -> None:
    generator = np.random.default_rng(0)
    parts = [(generator.random(n), generator.random(n) < 0.3) for n in (50, 400)]
    first, second = (Calibration.of(*part) for part in parts)
    whole = Calibration.of(*(np.concatenate(column) for column in zip(*parts)))
    pooled = first + second
    assert (pooled.ece, pooled.nll, pooled.brier) == pytest.approx((whole.ece, whole.nll, whole.brier))
    assert pooled.ece != pytest.approx((first.ece + second.ece) / 2, abs=1e-3)


def test_calibration_counts_the_region_only_and_survives_certain_errors() -> None:
    probability, truth = np.array([0.0, 0.0, 0.9, 0.9]), np.array([1, 0, 1, 0])
    region = np.array([True, False, True, False])
    sums = Calibration.of(probability, truth, region)
    assert sums.n == 2 and sums.nll == pytest.approx((-math.log(1e-7) - math.log(0.9)) / 2)


def test_uncertainty_is_held_against_errors() -> None:
    truth, prediction = np.array([1, 1, 0, 0, 0, 0]), np.array([1, 0, 1, 0, 0, 0])  # wrong: 1 and 2
    correlation, auc = uncertainty_error(np.array([0.1, 0.9, 0.4, 0.5, 0.2, 0.0]), prediction, truth)
    assert auc == 7 / 8  # of the 8 pairs, only 0.4 against 0.5 is the wrong way round
    assert correlation == pytest.approx(np.corrcoef([0.1, 0.9, 0.4, 0.5, 0.2, 0.0], [0, 1, 1, 0, 0, 0])[0, 1])
    assert all(map(math.isnan, uncertainty_error(np.ones(6), truth, truth)))
    correlation, auc = uncertainty_error(np.ones(6), prediction, truth)
    assert math.isnan(correlation) and auc == 0.5


def test_area_under_curve_counts_pairs() -> None:
    assert area_under_curve(np.array([0.8, 0.4]), np.array([0.1, 0.5])) == 0.75
    assert area_under_curve(np.array([0.5, 0.5]), np.array([0.5])) == 0.5
    assert math.isnan(area_under_curve(np.array([]), np.array([0.5])))


# -- intervals ------------------------------------------------------------------------------------------------


def test_published_interval_takes_elements_125_and_4875_of_seed_47() -> None:
    values = np.random.default_rng(1).random(45)
    state = np.random.RandomState(47)
    means = sorted(state.choice(values, 45, replace=True).mean() for _ in range(5000))
    assert bootstrap.published_interval(values) == (round(means[125], 4), round(means[4875], 4))


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        low, high = bootstrap.mean_interval(generator.normal(3, 1, 40))
        inside += low <= 3 <= high
    assert 0.89 <= inside / 200 <= 0.99


def test_intervals_of_few_or_infinite_values() -> None:
    assert bootstrap.mean_interval([4.0]) == (4.0, 4.0) and bootstrap.published_interval([4.0]) == (4.0, 4.0)
    assert all(map(math.isnan, (*bootstrap.mean_interval([]), *bootstrap.published_interval([]))))
    low, high = bootstrap.mean_interval([1.0, 2.0, math.inf])
    assert low < 2 and high == math.inf


def test_methods_are_resampled_together() -> None:
    """The same cases are drawn for vectors of one length, so a constant shift shifts the interval exactly."""
    values = np.random.default_rng(3).random(20)
    low, high = bootstrap.mean_interval(values)
    assert bootstrap.mean_interval(values + 1) == pytest.approx((low + 1, high + 1))
