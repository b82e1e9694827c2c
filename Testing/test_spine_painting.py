"""Painted spines and simulated series: the truth lies where the picture shows the disc, to a fraction of a pixel."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from Training.simulation.spine_anatomy import draw_spine
from Training.simulation.spine_bank import PaintedSpine, paint, paint_spine
from Training.simulation.spine_mr import REGIONS, Protocol, acquire, draw_protocol, simulate_spine
from Training.simulation.spine_painter import filled
from Training.simulation.spine_scanner import Look, grey_of_codes, scanned
from Training.simulation.spine_tissues import Contrast, Tissue, draw_contrast

QUIET = Look(shading=0.0, noise=0.0, blur_mm=0.0, artefacts=0.0)


@pytest.fixture(scope="module")
def painted() -> PaintedSpine:
    return paint_spine(np.random.default_rng(3), straight=True, offsets_mm=(0.0, 40.0), pixel_mm=0.8)


def discs_only() -> Contrast:
    """A contrast in which discs alone are bright."""
    mean = np.zeros(len(Tissue), np.float32)
    mean[[Tissue.ANNULUS, Tissue.NUCLEUS]] = 1.0
    return Contrast(mean, np.zeros_like(mean), 0.0, 0.0, "t2")


@pytest.mark.parametrize("seed", range(6))
def test_polygons_are_filled_as_matplotlib_does(seed):
    corners = np.random.default_rng(seed).uniform(-5, 35, (7, 2))  # crosses itself and the edges of the sheet
    shape = (30, 28)
    box, mask = filled(corners, shape)
    whole = np.zeros(shape, bool)
    whole[box] = mask
    grid = np.argwhere(np.ones(shape, bool))
    crossings = [sum(_crosses(point, a, b) for a, b in zip(corners, np.roll(corners, -1, 0))) for point in grid]
    assert (whole.ravel() == (np.array(crossings) % 2 == 1)).all()
    triangle = corners[:3]
    box, mask = filled(triangle, shape)
    whole[:] = False
    whole[box] = mask
    assert (whole.ravel() == Outline(triangle).contains_points(grid)).all()


def _crosses(point, a, b) -> bool:
    """Whether a ray to the left of ``point`` meets the edge."""
    if (a[0] <= point[0]) == (b[0] <= point[0]):
        return False
    return a[1] + (point[0] - a[0]) / (b[0] - a[0]) * (b[1] - a[1]) <= point[1]


def test_the_truth_is_the_centre_of_the_painted_disc(painted):
    tissue, instance = painted.codes[0] >> 8, painted.codes[0] & 255
    checked = 0
    for number, (_, row, column) in zip(painted.numbers, painted.points):
        at = tuple(np.rint(np.array([row, column]) / painted.pixel_mm).astype(int))
        if number == 2:  # C1/C2 is no disc but the base of the dens
            assert tissue[at] in (Tissue.MARROW, Tissue.CORTEX)
            continue
        assert tissue[at] in (Tissue.ANNULUS, Tissue.NUCLEUS)
        own = np.isin(tissue, (Tissue.ANNULUS, Tissue.NUCLEUS)) & (instance == instance[at])
        centre = np.argwhere(own).mean(axis=0) * painted.pixel_mm
        assert np.linalg.norm(centre - [row, column]) < 1.0  # mm
        checked += 1
    assert checked == 23


def test_the_canal_lies_behind_the_bodies_and_holds_cord_above_and_roots_below(painted):
    tissue = painted.codes[0] >> 8
    points = {int(n): p[1:] / painted.pixel_mm for n, p in zip(painted.numbers, painted.points)}

    def behind(number: int, millimetres: float = 45.0) -> set:
        row, column = np.rint(points[number]).astype(int)
        return set(tissue[row, column : column + int(millimetres / painted.pixel_mm)].tolist())

    assert Tissue.CORD in behind(6) and Tissue.CSF in behind(6)
    assert Tissue.CORD not in behind(24) and Tissue.CSF in behind(24)


def test_far_beside_the_middle_there_are_no_discs(painted):
    neck = int(painted.points[painted.numbers == 3][0, 1] / painted.pixel_mm)  # the head above has fluid, too
    tissue = painted.codes[1][neck:] >> 8
    assert not np.isin(tissue, (Tissue.NUCLEUS, Tissue.CSF, Tissue.CORD)).any()


def test_spines_are_kept_as_files(painted, tmp_path):
    painted.save(tmp_path / "spine.npz")
    again = PaintedSpine.load(tmp_path / "spine.npz")
    assert all(np.array_equal(getattr(again, name), value) for name, value in painted.__dict__.items())
    assert again.straight is True


def test_the_same_seed_paints_the_same_and_slices_do_not_depend_on_each_other():
    spine = draw_spine(np.random.default_rng(8))
    both, one = (paint(spine, np.random.default_rng(4), offsets, 1.5) for offsets in ((0.0, 8.0), (8.0,)))
    assert np.array_equal(both.codes[1], one.codes[0])


def test_worn_discs_are_dark_where_fluid_is_bright():
    health = np.ones(256, np.float32)
    health[40], health[41] = 0.0, 1.0
    contrast = draw_contrast(np.random.default_rng(0), "t2")
    table = grey_of_codes(contrast, health, Tissue.NUCLEUS, np.random.default_rng(0))
    assert table[(Tissue.NUCLEUS << 8) | 40] < 0.4 * table[(Tissue.NUCLEUS << 8) | 41]


def test_contrasts_are_ordered_as_in_their_sequences():
    grey = {kind: np.mean([draw_contrast(np.random.default_rng(s), kind).mean for s in range(30)], axis=0)
            for kind in ("t1", "t2", "stir")}  # fmt: skip
    assert grey["t2"][Tissue.CSF] > grey["t2"][Tissue.MARROW] > grey["t2"][Tissue.CORTEX]
    assert grey["t1"][Tissue.FAT] > grey["t1"][Tissue.MARROW] > grey["t1"][Tissue.CSF]
    assert grey["stir"][Tissue.CSF] > grey["stir"][Tissue.FAT]


def test_noise_follows_its_amount_and_a_quiet_scanner_changes_nothing():
    stack = np.full((2, 40, 40), 0.5, np.float32)
    depth = np.zeros((1, 40), np.float32)
    rng = np.random.default_rng(0)
    assert scanned(stack, depth, 1.0, QUIET, rng) == pytest.approx(stack)
    noisy = scanned(stack, depth, 1.0, Look(0.0, 0.1, 0.0, 0.0), rng)
    assert 0.03 < noisy.std() < 0.07


def test_the_centres_of_a_simulated_series_lie_in_its_bright_discs():
    rng = np.random.default_rng(11)
    spine = draw_spine(rng)
    protocol = Protocol("lumbar", 0.9, 2.0, 1.0, 5, 260, 160, (3.0, -4.0, 5.0))
    made = acquire(spine, protocol, discs_only(), QUIET, rng, painted_mm=0.9)
    assert made.numbers == sorted(made.numbers) and made.numbers[-1] == 25 and len(made.numbers) >= 5
    ijk = (np.column_stack([made.ras_mm, np.ones(len(made.ras_mm))]) @ np.linalg.inv(made.volume.ijk_to_ras).T)[:, :3]
    for column, row, k in ijk[1:-1]:
        box = made.volume.array[int(round(k)), int(row) - 5 : int(row) + 7, int(column) - 22 : int(column) + 24]
        assert box.max() > 0
        corner = np.array([int(row) - 5, int(column) - 22])
        at = corner + np.argwhere(box > box.max() / 2).mean(axis=0)
        assert np.linalg.norm(at - [row, column]) * protocol.pixel_mm < 3.5
    assert abs(np.linalg.det(made.volume.ijk_to_ras[:3, :3])) == pytest.approx(0.9 * 0.9 * 2.0)
    axes = made.volume.ijk_to_ras[:3, :3]
    assert axes[1, 0] < 0 and axes[2, 1] < 0 and axes[0, 2] > 0  # columns posterior, rows inferior, slices right


def test_protocols_stay_in_their_ranges():
    for seed in range(200):
        protocol = draw_protocol(np.random.default_rng(seed))
        assert 0.3 <= protocol.pixel_mm <= 1.2 and 0.8 <= protocol.gap_mm <= 5.0 and protocol.region in REGIONS


@pytest.mark.slow
@pytest.mark.parametrize("region", REGIONS)
def test_every_region_shows_its_discs(region):
    made = simulate_spine(np.random.default_rng(2), region, straight=region == "whole", painted_mm=2.0)
    first, last = REGIONS[region][:2]
    inside = [number for number in made.numbers if first <= number <= last]
    assert len(inside) >= 0.6 * (last - first + 1)
    assert made.volume.array.std() > 0
