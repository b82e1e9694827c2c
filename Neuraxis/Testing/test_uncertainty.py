"""Entropy, intervals on volumes and slice ranking against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.errors import GeometryError
from NeuraxisLib.measure import components, volume_ml
from NeuraxisLib.uncertainty import (
    binary_entropy,
    component_intervals,
    cutoffs,
    interval_note,
    most_uncertain_slices,
    volume_interval,
)
from NeuraxisLib.volume import Volume

GRID = Volume(np.zeros((6, 40, 50), np.uint8), np.diag([1.0, 1.0, 10.0, 1.0]))  # one voxel is 0.01 mL


def blurred_boxes(*centres, shape=GRID.array.shape) -> np.ndarray:
    """Nested squares about (k, j, i) with p = 0.95 (5x5), 0.6 (7x7), 0.2 (9x9): 0.25, 0.49 and 0.81 mL."""
    p = np.zeros(shape, np.float32)
    for half, value in ((4, 0.2), (3, 0.6), (2, 0.95)):
        for k, j, i in centres:
            part = p[k, j - half : j + half + 1, i - half : i + half + 1]
            np.maximum(part, value, out=part)
    return p


def test_entropy_in_bits():
    p = np.array([0.0, 1.0, 0.5, 0.25, 0.75, 0.11])
    assert binary_entropy(p) == pytest.approx([0, 0, 1, 0.8112781, 0.8112781, 0.4999158], abs=1e-6)
    assert binary_entropy(p).dtype == np.float32


def test_entropy_survives_overshoot_nan_and_the_ends_of_float32():
    p = np.array([-0.1, 1.1, np.nan, 1e-40, np.nextafter(1.0, 0.0)])
    entropy = binary_entropy(p)
    assert np.isfinite(entropy).all()
    assert entropy.tolist()[:3] == [0, 0, 1]
    assert entropy[3:] == pytest.approx([0, 0], abs=1e-5)


def test_interval_is_the_volume_at_the_strict_and_the_loose_cutoff():
    p = blurred_boxes((2, 20, 20))
    assert volume_interval(p, GRID, 0.5, p >= 0.5) == pytest.approx((0.25, 0.81))


def test_interval_holds_the_reported_volume_at_any_threshold():
    rng = np.random.default_rng(3)
    p = rng.random(GRID.array.shape) ** 4
    for threshold in (0.02, 0.1, 0.35, 0.5, 0.9, 0.97):
        mask = p >= threshold
        low, high = volume_interval(p, GRID, threshold, mask)
        assert low <= volume_ml(mask, GRID) <= high


def test_interval_holds_a_mask_that_does_not_follow_the_map():
    p = blurred_boxes((2, 20, 20))
    mask = np.zeros(p.shape, bool)
    mask[4, :10, :10] = True
    low, high = volume_interval(p, GRID, 0.5, mask)
    assert low == 0
    assert high == pytest.approx(1.0 + 0.81)


def test_interval_widens_with_coverage():
    rng = np.random.default_rng(4)
    p = rng.random(GRID.array.shape)
    widths = [np.subtract(*volume_interval(p, GRID, 0.5, p >= 0.5, coverage=c)[::-1]) for c in (0.2, 0.5, 0.8, 0.95)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_interval_of_an_empty_mask_starts_at_zero():
    nothing = np.zeros(GRID.array.shape)
    assert volume_interval(nothing, GRID, 0.5, nothing) == (0.0, 0.0)
    faint = np.where(blurred_boxes((2, 20, 20)) > 0, 0.3, 0.0)
    assert volume_interval(faint, GRID, 0.5, nothing) == pytest.approx((0.0, 0.81))
    assert volume_interval(faint, GRID, 0.5, nothing, min_volume_ml=1.0) == (0.0, 0.0)


def test_total_interval_counts_suspicious_regions_elsewhere_by_the_small_component_rule():
    p = blurred_boxes((2, 20, 20))
    p[5, 0:10, 0:10] = 0.3  # 1 mL that stayed below the threshold
    p[5, 30:32, 0:10] = 0.3  # 0.2 mL
    assert volume_interval(p, GRID, 0.5, p >= 0.5, min_volume_ml=0.5) == pytest.approx((0.25, 1.81))
    assert component_intervals(p, GRID, 0.5, components(p >= 0.5, GRID)) == [pytest.approx((0.25, 0.81))]


def test_interval_uses_local_slice_thickness():
    origins = np.array([(0.0, 0.0, z) for z in (0.0, 4.0, 8.0, 15.0, 22.0)])
    uneven = Volume(np.zeros((5, 40, 50), np.uint8), np.eye(4), slice_origins_ras=origins)
    p = blurred_boxes((2, 20, 20), shape=uneven.array.shape)
    assert volume_interval(p, uneven, 0.5, p >= 0.5) == pytest.approx((25 * 5.5e-3, 81 * 5.5e-3))


def test_component_intervals_share_a_common_rim_by_distance():
    """Two squares 8 columns apart: their 0.2 rims overlap in one column, which one of them gets."""
    p = blurred_boxes((2, 20, 15), (2, 20, 23))
    lesions = components(p >= 0.5, GRID)
    intervals = component_intervals(p, GRID, 0.5, lesions)
    assert len(lesions) == 2
    assert [low for low, _ in intervals] == pytest.approx([0.25, 0.25])
    assert sum(high for _, high in intervals) == pytest.approx(float((p >= 0.1).sum()) * 0.01)
    assert sorted(high for _, high in intervals) == pytest.approx([0.72, 0.81])


def test_component_intervals_do_not_take_from_regions_they_do_not_touch():
    p = blurred_boxes((2, 20, 15), (2, 20, 26))  # rims two columns apart
    p[2, 20, 15:20] = 0.95
    for (low, high), lesion in zip(component_intervals(p, GRID, 0.5, components(p >= 0.5, GRID)), "ab"):
        assert high == pytest.approx(0.81), lesion
        assert low in (pytest.approx(0.25), pytest.approx(0.27))


def test_component_intervals_hold_each_component_and_no_component_gives_none():
    rng = np.random.default_rng(5)
    p = rng.random(GRID.array.shape) ** 6
    lesions = components(p >= 0.5, GRID)
    assert len(lesions) > 10
    for lesion, (low, high) in zip(lesions, component_intervals(p, GRID, 0.5, lesions)):
        assert low <= lesion.volume_ml <= high + 1e-9
    assert component_intervals(p, GRID, 0.5, []) == []


def test_cutoffs_and_note_name_the_same_numbers():
    assert cutoffs(0.5) == (0.9, 0.1)
    assert cutoffs(0.95) == (0.95, 0.1)
    assert cutoffs(0.05) == (0.9, 0.05)
    note = interval_note(0.35)
    assert all(number in note for number in ("80%", "0.9", "0.1", "0.35"))


def test_most_uncertain_slices_come_first_and_certain_ones_not_at_all():
    p = np.zeros(GRID.array.shape)
    p[1, 0, :10] = 0.5
    p[4, 0, :30] = 0.5
    p[2, 0, :20] = 0.5
    p[3] = 0.01  # a faint haze over a whole slice is not doubt about a lesion
    entropy = binary_entropy(p)
    assert most_uncertain_slices(entropy, GRID) == [4, 2, 1]
    assert most_uncertain_slices(entropy, GRID, count=2) == [4, 2]
    assert most_uncertain_slices(np.zeros(p.shape), GRID) == []


def test_thick_slices_weigh_more_in_the_ranking():
    origins = np.array([(0.0, 0.0, z) for z in (0.0, 1.0, 2.0, 9.0)])
    uneven = Volume(np.zeros((4, 10, 10), np.uint8), np.eye(4), slice_origins_ras=origins)
    entropy = np.zeros(uneven.array.shape)
    entropy[0, 0, :3] = 1
    entropy[3, 0, :2] = 1
    assert most_uncertain_slices(entropy, uneven) == [3, 0]


def test_maps_of_another_shape_are_refused():
    for call in (
        lambda wrong: volume_interval(wrong, GRID, 0.5, GRID.array),
        lambda wrong: volume_interval(GRID.array, GRID, 0.5, wrong),
        lambda wrong: component_intervals(wrong, GRID, 0.5, []),
        lambda wrong: most_uncertain_slices(wrong, GRID),
    ):
        with pytest.raises(GeometryError):
            call(np.zeros((1, 2, 3)))
