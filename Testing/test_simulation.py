"""Simulated heads: the same seed gives the same head, and the truth is true."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from phantom_head import SLICE_MM, label_map, real_head
from scipy import ndimage

from Training.sampling import _bright_rim
from Training.simulation import anatomy as anatomies
from Training.simulation import bleeds, head_ct, mimics, scanner
from Training.simulation.bleeds import KINDS, Anatomy, draw_bleed
from Training.simulation.fields import blur_mm, bounding_box, depth_voxels, smooth_field
from Training.simulation.head_ct import SimulatedHead, plant, synthesise


@cache
def real_anatomy() -> Anatomy:
    return anatomies.of_real_head(*real_head())


@cache
def map_anatomy() -> Anatomy:
    return anatomies.of_label_map(label_map())


@cache
def planted(seed: int) -> SimulatedHead:
    return plant(real_head()[0], real_anatomy(), np.random.default_rng(seed))


@cache
def synthetic(seed: int) -> SimulatedHead:
    return synthesise(label_map(), np.random.default_rng(seed))


@cache
def drawn(kind: str, anatomy_of: Callable[[], Anatomy], count: int = 8) -> list[tuple[bleeds.Bleed, np.ndarray]]:
    """``count`` bleeds of a kind, each with its occupancy on the whole fine grid."""
    anatomy, rng, out = anatomy_of(), np.random.default_rng(0), []
    while len(out) < count:
        bleed = draw_bleed(kind, anatomy, rng)
        if bleed is not None:
            whole = np.zeros(anatomy.inside.shape, np.float32)
            whole[bleed.box] = bleed.occupancy
            out.append((bleed, whole))
    return out


# -- the phantom itself, so that the tests below look at something -------------------------------------------------


def test_phantom_has_the_anatomy_that_the_simulation_needs():
    for anatomy in (map_anatomy(), real_anatomy()):
        voxel_ml = np.prod(anatomy.spacing_mm) / 1000
        assert 250 < anatomy.inside.sum() * voxel_ml < 400
        assert 3 < anatomy.ventricles.sum() * voxel_ml < 12
        assert anatomy.depth_mm.max() > 35
        assert np.abs(anatomy.midline_mm - 55.5).max() < 1.0


def test_veins_of_the_neck_are_not_inside_the_skull():
    labels = label_map().copy()
    labels[0:14, 58:61, 50:53] = anatomies.VEIN  # a jugular vein below the skull base
    labels[100:104, 58:61, 54:57] = anatomies.VEIN  # a sinus on the brain
    inside = anatomies.of_label_map(labels).inside
    brain = (label_map() > 0) & (label_map() < 500)
    assert not inside[0:10, 58:61, 50:53].any()
    assert (inside & ~brain).sum() == (inside & (labels == anatomies.VEIN) & ~brain).sum()


# -- determinism ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [planted, synthetic])
def test_the_same_seed_gives_the_same_head_and_another_seed_another(make):
    first, again, other = make(3), make.__wrapped__(3), make(4)
    assert again.volume.array.tobytes() == first.volume.array.tobytes()
    assert again.truth.tobytes() == first.truth.tobytes()
    assert np.array_equal(again.volume.ijk_to_ras, first.volume.ijk_to_ras)
    assert other.volume.array.shape != first.volume.array.shape or (other.volume.array != first.volume.array).any()


# -- truth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [planted, synthetic])
@pytest.mark.parametrize("seed", range(4))
def test_volumes_are_those_of_the_truth_and_the_truth_is_in_the_brain(make, seed):
    head = make(seed)
    voxel_ml = abs(np.linalg.det(head.volume.ijk_to_ras[:3, :3])) / 1000
    for kind, value in KINDS.items():
        assert head.volumes_ml.get(kind, 0.0) == pytest.approx((head.truth == value).sum() * voxel_ml, abs=1e-9)
    assert set(np.unique(head.truth)) <= {0, *KINDS.values()}
    outside = (head.truth > 0) & ~ndimage.binary_dilation(head.brain)
    assert outside.sum() <= 0.01 * (head.truth > 0).sum()


@pytest.mark.parametrize("make", [planted, synthetic])
def test_blood_has_the_density_of_blood(make):
    means = []
    for seed in range(6):
        head = make(seed)
        for value in np.unique(head.truth[head.truth > 0]):
            core = ndimage.binary_erosion(head.truth == value, np.ones((1, 3, 3)))
            if core.sum() > 60:
                means.append(float(np.median(head.volume.array[core])))
    assert len(means) >= 4
    assert all(38 < mean < 92 for mean in means)


@pytest.mark.parametrize("make,args", [(synthesise, ()), (plant, ())])
def test_heads_without_bleeds_have_no_truth_although_mimics_are_there(make, args, monkeypatch):
    calls = []
    for name in ("add_to_synthetic", "add_to_real"):
        added = getattr(mimics, name)
        monkeypatch.setattr(mimics, name, lambda image, *rest, added=added: calls.append(_changes(added, image, rest)))
    for seed in range(2):
        rng = np.random.default_rng(seed)
        if make is synthesise:
            head = synthesise(label_map(), rng, bleeds=0)
        else:
            head = plant(real_head()[0], real_anatomy(), rng, bleeds=0)
        assert not head.truth.any()
        assert head.volumes_ml == {}
    assert max(calls) > 0


def _changes(added, image: np.ndarray, rest: tuple) -> int:
    """How many voxels the mimics brighten to the density of blood or above."""
    before = image.copy()
    added(image, *rest)
    return int(((image > 40) & (image > before + 5)).sum())


@pytest.mark.parametrize("seed", range(8))
def test_planting_leaves_voxels_away_from_bleeds_as_they_were(seed, monkeypatch):
    monkeypatch.setattr(mimics, "add_to_real", lambda *args: None)
    touched, drawn_bleeds = np.zeros(real_anatomy().inside.shape, bool), []
    draw = head_ct._draw
    monkeypatch.setattr(head_ct, "_draw", lambda *args: drawn_bleeds.extend(draw(*args)) or list(drawn_bleeds))
    head = plant(real_head()[0], real_anatomy(), np.random.default_rng(seed), bleeds=2)
    for bleed in drawn_bleeds:
        touched[bleed.box] |= (bleed.occupancy > 0) | (bleed.oedema > 0)
    fine = touched.shape[0] // head.volume.slice_count
    away = ~touched.reshape(-1, fine, *touched.shape[1:]).any(axis=1)
    changed = head.volume.array != real_head()[0].array
    assert drawn_bleeds and changed.any()
    assert not (changed & away).any()


def test_bleeds_are_brighter_than_the_brain_they_replace():
    for seed in range(8):
        head = planted(seed)
        blood = head.truth > 0
        if blood.sum() > 50:
            rise = head.volume.array[blood].astype(float) - real_head()[0].array[blood]
            assert rise.mean() > 12


# -- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anatomy", [map_anatomy, real_anatomy])
@pytest.mark.parametrize("kind", ["epidural", "subdural"])
def test_extra_axial_bleeds_lie_against_the_inner_table_or_the_falx(kind, anatomy):
    places, anatomy = drawn(kind, anatomy), anatomy()
    for _, occupancy in places:
        blood = occupancy > 0.5
        assert not (blood & ~anatomy.inside).any()
        at_skull = anatomy.depth_mm[blood].min() < 2.1
        columns = np.nonzero(blood)[2] * anatomy.spacing_mm[2]
        at_falx = np.abs(columns - anatomy.midline_mm[np.nonzero(blood)[0]]).min() < 3
        assert at_skull or (kind == "subdural" and at_falx)


def test_an_epidural_is_a_lens_and_a_subdural_a_crescent():
    """For the same thickness a subdural spreads much further along the skull."""
    spread = {}
    for kind in ("epidural", "subdural"):
        ratios = []
        for _, occupancy in drawn(kind, map_anatomy):
            blood = np.argwhere(occupancy > 0.5)
            if len(blood) > 100:
                extent = np.ptp(blood, axis=0).max()
                ratios.append(extent / max(map_anatomy().depth_mm[tuple(blood.T)].max(), 1.0))
        spread[kind] = np.median(ratios)
    assert spread["subdural"] > 1.5 * spread["epidural"]


def test_subdurals_stay_on_their_side():
    for _, occupancy in drawn("subdural", map_anatomy):
        k, _, i = np.nonzero(occupancy > 0.5)
        side = i - map_anatomy().midline_mm[k]
        assert min((side > 3).mean(), (side < -3).mean()) < 0.01


def test_parenchymal_bleeds_mostly_spare_the_ventricles():
    anatomy = map_anatomy()
    places = drawn("intraparenchymal", map_anatomy, 24)
    assert np.mean([not (occupancy[anatomy.ventricles] > 0.5).any() for _, occupancy in places]) > 0.6
    for bleed, occupancy in places:
        assert not (occupancy[~anatomy.inside] > 0.5).any()
        assert bleed.oedema.shape == bleed.occupancy.shape


@pytest.mark.parametrize("anatomy", [map_anatomy, real_anatomy])
def test_intraventricular_blood_is_in_the_ventricles(anatomy):
    places, anatomy = drawn("intraventricular", anatomy), anatomy()
    near = ndimage.binary_dilation(anatomy.ventricles, iterations=1)
    for _, occupancy in places:
        blood = occupancy > 0.5
        assert (blood & near).sum() > 0.97 * blood.sum()


def test_layered_blood_lies_in_the_dependent_part():
    """On the back, blood settles posteriorly: a layered bleed's rows lie behind the middle of its ventricle."""
    behind = []
    for _, occupancy in drawn("intraventricular", map_anatomy, 30):
        parts, _ = ndimage.label(map_anatomy().ventricles)
        blood = occupancy > 0.5
        own = np.bincount(parts[blood & (parts > 0)]).argmax()
        rows, all_rows = np.nonzero(blood)[1], np.nonzero(parts == own)[1]
        behind.append(rows.mean() - all_rows.mean())
        full = rows.max() >= all_rows.max() - 1
        assert full or behind[-1] > -20
    assert np.median(behind) > 1.0
    assert np.mean(np.array(behind) > 0.5) > 0.55


def test_no_ventricle_in_view_means_no_intraventricular_blood():
    anatomy = map_anatomy()
    none = np.zeros_like(anatomy.ventricles)
    bare = Anatomy(anatomy.spacing_mm, anatomy.inside, anatomy.depth_mm, none, anatomy.csf, anatomy.midline_mm)
    assert draw_bleed("intraventricular", bare, np.random.default_rng(0)) is None


def test_kinds_are_drawn_with_their_shares():
    rng = np.random.default_rng(0)
    kinds = [bleeds.random_kind(rng) for _ in range(4000)]
    for kind, share in bleeds.KIND_SHARES.items():
        assert kinds.count(kind) / 4000 == pytest.approx(share, abs=0.03)
    assert sum(bleeds.KIND_SHARES.values()) == pytest.approx(1)


def test_some_bleeds_are_faint():
    rng = np.random.default_rng(0)
    made = [draw_bleed("intraventricular", real_anatomy(), rng) for _ in range(60)]
    density = np.array([bleed.hu.mean() for bleed in made if bleed is not None])
    assert 0.1 < (density < 52).mean() < 0.5 and density.min() > 30


# -- partial volume and slices ---------------------------------------------------------------------------------------


def scan_ball(seed: int, radius_mm: float = 18.0):
    """A scan of a ball of blood in the phantom: (volume, truth, millilitres of the ball)."""
    z, y, x = np.indices(label_map().shape)
    distance = radius_mm - np.sqrt((z - 66) ** 2 + (y - 66) ** 2 + (x - 52) ** 2)
    occupied = np.clip(0.5 + distance, 0, 1).astype(np.float32)
    image = np.where(map_anatomy().inside, 30.0 + 30 * occupied, -1000.0).astype(np.float32)
    kinds = (occupied > 0.4).astype(np.uint8)
    volume, truth, brain = scanner.scan(image, occupied, kinds, map_anatomy(), np.random.default_rng(seed))
    return volume, truth, brain, float(occupied.sum()) / 1000


@cache
def scans() -> tuple:
    return tuple(scan_ball(seed) for seed in range(10))


def whole(truth: np.ndarray) -> bool:
    """Whether the ball is not cut off by the first or last slice."""
    return not (truth[0].any() or truth[-1].any())


def test_truth_of_slices_agrees_with_the_fine_occupancy():
    ratios = []
    for volume, truth, _, ml in scans():
        if whole(truth):
            ratios.append((truth > 0).sum(axis=(1, 2)) @ volume.voxel_volumes_ml / ml)
    assert len(ratios) >= 7
    assert all(ratio == pytest.approx(1, abs=0.08) for ratio in ratios)
    assert np.mean(ratios) == pytest.approx(1, abs=0.02)


def test_thick_slices_average_what_they_cover():
    """Planting: every slice's truth and density are those of its mean occupancy."""
    anatomy, fine = real_anatomy(), real_anatomy().inside.shape[0] // real_head()[0].slice_count
    occupancy = np.zeros(anatomy.inside.shape, np.float32)
    occupancy[21:28, 40:70, 40:70] = 1
    thick = head_ct._slice_mean(occupancy, fine)
    box = slice(21, 28), slice(40, 70), slice(40, 70)
    slices = slice(box[0].start // fine, -(-box[0].stop // fine))
    again = head_ct._to_slices(occupancy[box], box[0], slices, fine)
    assert np.array_equal(again, thick[slices, 40:70, 40:70])
    assert thick.sum() * SLICE_MM == pytest.approx(occupancy.sum() * anatomy.spacing_mm[0], rel=1e-5)


@pytest.mark.parametrize("thickness", [1.0, 2.5, 7.0])
def test_slices_come_in_every_thickness(thickness, monkeypatch):
    assert min(scanner.THICKNESS_MM)[0] == 0.5 and max(scanner.THICKNESS_MM)[0] == 7.0
    assert sum(share for _, share in scanner.THICKNESS_MM) == pytest.approx(1)
    monkeypatch.setattr(scanner, "THICKNESS_MM", ((thickness, 1.0),))
    volume, truth, _, ml = scan_ball(seed=3)
    assert volume.ijk_to_ras[2, 2] == thickness
    assert volume.slice_count * thickness == pytest.approx(100, abs=25)
    assert (truth > 0).sum(axis=(1, 2)) @ volume.voxel_volumes_ml == pytest.approx(ml, rel=0.06)


def test_thin_slices_are_noisier():
    noise = {t: scanner._noise((6, 64, 64), 1.0, t, np.random.default_rng(0)).std() for t in (0.5, 5.0)}
    assert noise[0.5] > 2 * noise[5.0]


def test_tilt_shears_the_matrix_and_puts_every_slice_where_it_was_taken():
    """In patient space a ball is round whatever the tilt; a wrong shear would stretch it along a diagonal."""
    tilted = upright = 0
    for volume, truth, brain, _ in scans():
        k, j, i = np.nonzero(truth)
        if not whole(truth) or len(k) < 200:  # cut by the first or last slice
            continue
        position = volume.ijk_to_ras[:3] @ np.stack([i, j, k, np.ones_like(i)])
        shape = np.cov(position)
        variance = 18.0**2 / 5
        assert np.abs(np.diag(shape) / variance - 1).max() < 0.1
        assert np.abs(shape - np.diag(np.diag(shape))).max() < 0.06 * variance
        tilted, upright = tilted + volume.is_sheared, upright + (not volume.is_sheared)
        volume.require_perpendicular_rows()
        assert brain.shape == truth.shape == volume.array.shape
    assert tilted >= 2 and upright >= 2


def test_tilted_slices_hold_tissue_from_below_in_front_and_above_behind():
    """The same brain, seen along the matrix, sits at the same height in a tilted and in an upright scan."""
    for volume, _, brain, _ in scans():
        if not volume.is_sheared:
            continue
        k, j, i = np.nonzero(brain)
        height = (volume.ijk_to_ras[:3] @ np.stack([i, j, k, np.ones_like(i)]))[2]
        front, back = j < np.median(j), j > np.median(j)
        middle = (k > 2) & (k < volume.slice_count - 3)
        assert np.sign(height[back & middle].mean() - height[front & middle].mean()) == np.sign(volume.ijk_to_ras[2, 1])


def test_values_are_hu_in_the_range_of_scanners():
    for head in (synthetic(0), synthetic(1), planted(0)):
        assert head.volume.array.dtype == np.int16
        assert head.volume.unit == "HU"
        assert head.volume.array.min() >= -1024 and head.volume.array.max() <= 3071
        assert 20 < np.median(head.volume.array[head.brain]) < 45


# -- the tools -------------------------------------------------------------------------------------------------------


def test_depth_is_the_exact_distance():
    mask = map_anatomy().inside[bounding_box(map_anatomy().inside, margin=1)]
    assert np.array_equal(depth_voxels(mask), ndimage.distance_transform_edt(mask).astype(np.float32))


def test_bounding_box_is_the_smallest_and_stays_in_the_array():
    mask = np.zeros((5, 6, 7), bool)
    assert bounding_box(mask) == (slice(0, 5), slice(0, 6), slice(0, 7))
    mask[0, 2:4, 6] = True
    assert bounding_box(mask) == (slice(0, 1), slice(2, 4), slice(6, 7))
    assert bounding_box(mask, margin=2) == (slice(0, 3), slice(0, 6), slice(4, 7))


def test_smooth_field_varies_over_its_scale():
    rng = np.random.default_rng(0)
    for scale in (4.0, 12.0):
        field = smooth_field((60, 60), (1.0, 1.0), scale, rng)
        assert field.dtype == np.float32
        assert field.std() == pytest.approx(1, abs=0.01)
        step = np.corrcoef(field[:, :-1].ravel(), field[:, 1:].ravel())[0, 1]
        far = np.corrcoef(field[:, : -int(3 * scale)].ravel(), field[:, int(3 * scale) :].ravel())[0, 1]
        assert step > 0.9 and far < 0.5


def test_blur_is_in_mm():
    spike = np.zeros((41, 41), np.float32)
    spike[20, 20] = 1
    blurred = blur_mm(spike, 2.0, (1.0, 0.5))
    offsets = np.arange(41) - 20
    assert (blurred.sum(axis=1) @ offsets**2) == pytest.approx(2.0**2, rel=0.06)
    assert (blurred.sum(axis=0) @ (0.5 * offsets) ** 2) == pytest.approx(2.0**2, rel=0.06)


# -- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_heads_from_real_anatomy(shared_data):
    from Training.simulation.bank import HeadSources

    sources = HeadSources(shared_data / "head_ct_training", shared_data / "label_maps")
    assert len(sources.clean) == 9 and len(sources.positive) == 16 and len(sources.maps) == 10
    for make in (sources.planted, sources.synthetic):
        head = make(np.random.default_rng(11))
        assert 600 < head.brain.sum(axis=(1, 2)) @ head.volume.voxel_volumes_ml < 2200
        assert head.volumes_ml == pytest.approx(head_ct._head(head.volume, head.truth, head.brain).volumes_ml)
        inside = head.truth[head.brain]
        assert (inside > 0).sum() >= 0.98 * (head.truth > 0).sum()
    name = next(name for name, slices in sources.positive.items() if slices)
    head, label = sources.real_with_labels(name)
    assert len(label) == head.volume.slice_count
    assert set(np.flatnonzero(label == 1)) <= set(sources.positive[name])


def test_a_bright_rim_lies_under_the_skull_and_fades_inward():
    rows, columns = np.indices((96, 96)) - 48
    radius = np.hypot(rows, columns)
    hu = np.where(radius < 38, 30.0, np.where(radius < 44, 900.0, -1000.0))[None].astype(np.float32)
    for seed in range(20):
        rim = _bright_rim(hu, np.random.default_rng(seed))[0]
        under, deep = np.abs(rim[(radius > 35) & (radius < 38)]).mean(), np.abs(rim[radius < 10]).mean()
        assert not rim[(radius > 38) & (radius < 44)].any()
        assert deep < 0.5 < under or under < 0.5
    assert any(abs(_bright_rim(hu, np.random.default_rng(seed))).max() > 10 for seed in range(20))
