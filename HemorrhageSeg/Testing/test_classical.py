"""Classical methods: clusters as a textbook finds them, contours as a library moves them, the doors that run them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pipeline_phantom import CENTRE_RAS, RADIUS_MM, SPHERE_ML, head
from scipy import ndimage

from HemorrhageSegLib.active_contour import edge_map, evolve
from HemorrhageSegLib.classical import active_contour, blood_membership, cluster_centres, fuzzy_c_means, memberships
from HemorrhageSegLib.classical_models import HEADERS, write_model_files
from HemorrhageSegLib.density import DENSEST_BLOOD_HU
from HemorrhageSegLib.task import TASK, HemorrhageOptions
from NeuraxisLib.errors import CancelledError, InputError, ModelError
from NeuraxisLib.models import find_model, installed_models, load_model
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume

METHODS = {"hemorrhage-fuzzy-c-means": fuzzy_c_means, "hemorrhage-active-contour": active_contour}
EVERY_METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
EVERY_MODEL = pytest.mark.parametrize("name", METHODS)


def brain_slices(blood_radius_px: int = 14, seed: int = 4) -> tuple[Volume, np.ndarray, np.ndarray]:
    """Three slices of CSF, white and grey matter within bone, a disc of blood in the middle one; brain and blood."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((120, 120)) - 60
    depth = np.hypot(rows, columns)
    hu = np.where(depth < 55, 30.0, np.where(depth < 60, 800.0, -1000.0))
    hu[(depth > 36) & (depth < 55)] = 38
    hu[np.hypot(rows + 25, columns) < 10] = 8
    hu = np.repeat(hu[None], 3, axis=0)
    blood = np.zeros(hu.shape, bool)
    blood[1] = np.hypot(rows - 14, columns) < blood_radius_px
    hu[blood] = 65
    hu = ndimage.gaussian_filter(hu, (0, 0.8, 0.8)) + rng.normal(0, 3, hu.shape)
    volume = Volume(np.rint(hu).astype(np.int16), np.diag([-0.7, -0.7, 5.0, 1.0]), "HU")
    return volume, np.repeat((depth < 55)[None], 3, axis=0), blood


def small_head(**changes) -> Volume:
    """The phantom of the pipeline's tests with larger voxels, for speed."""
    return head(spacing=(1.8, 1.8, 5.0), **changes)


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


# -- clusters -------------------------------------------------------------------------------------------------------


def textbook_centres(voxels: np.ndarray, start: tuple[float, ...], fuzziness: float) -> np.ndarray:
    """Fuzzy c-means as written down by Bezdek: a membership for every voxel and cluster, sums over all of them."""
    centres = np.array(start)
    for _ in range(1000):
        distance = np.abs(voxels[:, None] - centres[None, :]) + 1e-9
        member = np.empty_like(distance)
        for cluster in range(len(centres)):
            ratios = (distance[:, [cluster]] / distance) ** (2 / (fuzziness - 1))
            member[:, cluster] = 1 / ratios.sum(axis=1)
        powered = member**fuzziness
        moved = np.array([(powered[:, c] * voxels).sum() / powered[:, c].sum() for c in range(len(centres))])
        if np.abs(moved - centres).max() < 1e-5:
            return np.sort(moved)
        centres = moved
    raise AssertionError("the textbook's iteration did not come to rest")


@pytest.mark.parametrize("fuzziness", [1.6, 2.0, 2.5])
def test_clusters_of_the_histogram_are_those_of_the_voxels(fuzziness: float) -> None:
    rng = np.random.default_rng(1)
    means = rng.choice([8, 28, 38, 66], 4000, p=[0.1, 0.4, 0.35, 0.15])
    voxels = np.clip(np.rint(rng.normal(means, 3)), 0, 100)
    counts = np.bincount(voxels.astype(int), minlength=101).astype(float)
    centres = cluster_centres(np.arange(101.0), counts, fuzziness)
    expected = textbook_centres(voxels, (8.0, 28.0, 37.0, 65.0), fuzziness)
    assert np.allclose(centres, expected, atol=0.01)
    assert np.allclose(centres, [8, 28, 38, 66], atol=1.5)


def test_memberships_by_hand() -> None:
    """At 20 HU from one centre and 10 from the other, with m = 2: 1/400 and 1/100 of the closeness, so 0.2 and 0.8."""
    found = memberships(np.array([50.0, 30.0]), np.array([30.0, 60.0]), 2.0)
    assert np.allclose(found, [[0.2, 0.8], [1.0, 0.0]], atol=1e-6)


def test_membership_in_blood_rises_with_density_and_is_one_above_its_centre() -> None:
    """The formula's own falls again above: at 100 HU, 1/1600 of 1/1600 + 1/3969 + 1/5184 + 1/8464, about half."""
    centres = np.array([8.0, 28.0, 37.0, 60.0])
    values = np.arange(0, 100.5, 0.5)
    found = blood_membership(values, centres, 2.0)
    assert (np.diff(found) >= -1e-12).all()
    assert (found[values >= 60] == 1).all() and (found[values <= 37] == 0).all()
    assert memberships(np.array([100.0]), centres, 2.0)[0, 3] == pytest.approx(0.526, abs=0.001)


def test_a_small_bleed_has_its_cluster_only_where_that_is_held() -> None:
    rng = np.random.default_rng(2)
    voxels = np.concatenate([rng.normal(28, 6, 50000), rng.normal(38, 6, 45000), rng.normal(8, 6, 5000)])
    voxels = np.clip(np.rint(np.concatenate([voxels, rng.normal(65, 6, 600)])), 0, 100)
    counts = np.bincount(voxels.astype(int), minlength=101).astype(float)
    free, held = (cluster_centres(np.arange(101.0), counts, 2.0, contrast) for contrast in (0.0, 20.0))
    assert free[3] < 45
    assert held[3] - held[2] >= 20 - 1e-9 and held[3] < 66


# -- maps -----------------------------------------------------------------------------------------------------------


@EVERY_METHOD
def test_blood_is_found_within_its_slice_and_bone_is_none(method) -> None:
    volume, brain, blood = brain_slices()
    found = method(volume, brain, {}, Progress())
    assert found.dtype == np.float32 and found.shape == volume.array.shape
    assert found.min() >= 0 and found.max() <= 1
    called = found >= 0.5
    assert dice(called, blood) > 0.93
    assert not called[[0, 2]].any()
    assert not called[~brain].any() and not (called & (volume.array > DENSEST_BLOOD_HU)).any()


@EVERY_METHOD
def test_a_spur_of_bone_within_the_brain_is_not_blood(method) -> None:
    volume, brain, blood = brain_slices()
    array = volume.array.copy()
    array[1, 50:60, 20:32] = 600
    found = method(replace(volume, array=array), brain, {}, Progress()) >= 0.5
    assert not found[1, 50:60, 20:32].any()
    assert dice(found, blood) > 0.9


@EVERY_METHOD
def test_without_a_brain_the_error_says_what_to_choose(method) -> None:
    volume, brain, _ = brain_slices()
    with pytest.raises(InputError, match="No brain is in view; choose a head CT"):
        method(volume, np.zeros_like(brain), {}, Progress())


@EVERY_METHOD
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"clusters": 5}, "no parameter 'clusters'; it has: fuzziness"),
        ({"fuzziness": 1}, "'fuzziness' must be above 1"),
        ({"fuzziness": "2"}, "'fuzziness' must be a number"),
        ({"blur_mm": True}, "'blur_mm' must be a number"),
        ({"opening_mm": -1.0}, "'opening_mm' must be from 0 to 20"),
        ({"blur_mm": float("nan")}, "'blur_mm' must be from 0 to 20"),
        ({"legacy_no_skull_strip": 1}, "'legacy_no_skull_strip' must be true or false"),
    ],
)
def test_impossible_parameters_are_named(method, arguments: dict, words: str) -> None:
    volume, brain, _ = brain_slices()
    with pytest.raises(ModelError, match=words):
        method(volume, brain, arguments, Progress())


def test_impossible_parameters_of_contours_are_named() -> None:
    volume, brain, _ = brain_slices()
    for arguments, name in (({"reach_mm": 0}, "reach_mm"), ({"smoothing": 1.5}, "smoothing"), ({"edge_mm": 0}, "edge")):
        with pytest.raises(ModelError, match=name):
            active_contour(volume, brain, arguments, Progress())


@EVERY_METHOD
def test_pixels_need_not_be_square_nor_small(method) -> None:
    """The same head with every second column: parameters are in mm."""
    volume, brain, blood = brain_slices()
    wide = Volume(volume.array[:, :, ::2].copy(), np.diag([-1.4, -0.7, 5.0, 1.0]), "HU")
    assert dice(method(wide, brain[:, :, ::2], {}, Progress()) >= 0.5, blood[:, :, ::2]) > 0.88


def test_legacy_search_of_the_whole_picture_takes_bone_for_blood() -> None:
    """In the brain window, as far as it shows them, bone and blood are one cluster."""
    volume, brain, blood = brain_slices()
    found = fuzzy_c_means(volume, brain, {"legacy_no_skull_strip": True, "opening_mm": 0.0}, Progress()) >= 0.5
    assert found[volume.array > 400].all() and found[blood].mean() > 0.8
    assert not found[volume.array < 45].any()


@EVERY_METHOD
def test_progress_rises_to_its_end_and_cancels(method) -> None:
    volume, brain, _ = brain_slices()
    told: list[float] = []
    method(volume, brain, {}, Progress(lambda fraction, stage: told.append(fraction)))
    assert told == sorted(told) and told[0] == 0 and len(told) >= 4
    for stop in range(len(told)):
        asked = iter(range(len(told) + 1))
        with pytest.raises(CancelledError):
            method(volume, brain, {}, Progress(cancelled=lambda asked=asked, stop=stop: next(asked) == stop))


# -- contours -------------------------------------------------------------------------------------------------------


def blurred_disc() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy picture of a blurred disc of 25 HU contrast, the disc, and a small start off its centre."""
    rows, columns = np.indices((90, 90)) - 45
    disc = np.hypot(rows, columns) < 18
    image = (
        35 + 25 * ndimage.gaussian_filter(disc.astype(float), 1.5) + np.random.default_rng(3).normal(0, 4, disc.shape)
    )
    return image.astype(np.float32), disc, np.hypot(rows - 5, columns + 3) < 7


def test_a_contour_finds_a_blurred_disc_from_a_part_of_it() -> None:
    image, disc, start = blurred_disc()
    found = evolve(image, start, np.ones_like(disc), (0.7, 0.7), 21.0, 1)
    assert dice(found, disc) > 0.97
    assert dice(start, disc) < 0.3


@pytest.mark.parametrize("smoothing", [0, 1, 2])
@pytest.mark.parametrize("reach", [70, 90])
def test_contours_move_as_the_librarys_do(smoothing: int, reach: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-image's morphological Chan-Vese, where all of the picture may be searched and is within reach."""
    library = pytest.importorskip("skimage.segmentation.morphsnakes")
    in_turn = [lambda u: library.sup_inf(library.inf_sup(u)), lambda u: library.inf_sup(library.sup_inf(u))]
    monkeypatch.setattr(library, "_curvop", library._fcycle(in_turn))  # it remembers whose turn it was last
    image, _, start = blurred_disc()
    moved = library.morphological_chan_vese(image.astype(float), reach, start.astype(np.int8), smoothing=smoothing) > 0
    regions, _ = ndimage.label(moved)
    expected = moved & np.isin(regions, np.unique(regions[start & moved]))
    found = evolve(image, start, np.ones_like(start), (1.0, 1.0), float(reach), smoothing)
    assert np.array_equal(found, expected) and found.sum() > 2 * start.sum()


def test_what_may_not_be_searched_draws_no_contour() -> None:
    """Bone beside the blood: with it in the means, nothing else would be dense."""
    image, disc, start = blurred_disc()
    space = np.ones_like(disc)
    space[:, :20] = False
    image = np.where(space, image, np.float32(900))
    found = evolve(image, start, space, (0.7, 0.7), 21.0, 1)
    assert not found[~space].any()
    assert dice(found, disc) > 0.97


def test_a_contour_keeps_to_its_reach() -> None:
    image, disc, start = blurred_disc()
    found = evolve(image, start, np.ones_like(disc), (1.0, 1.0), 4.0, 0)
    assert found.any() and not found[ndimage.distance_transform_edt(~start) > 4].any()


def test_a_start_on_the_wrong_side_comes_to_nothing_or_stays_near() -> None:
    """Without any contrast there is no blood to follow: the contour does not run away."""
    image = np.full((60, 60), 35, np.float32)
    start = np.zeros(image.shape, bool)
    start[25:35, 25:35] = True
    assert evolve(image, start, np.ones_like(start), (1.0, 1.0), 10.0, 1).sum() <= start.sum()


def test_the_edge_map_is_half_at_the_border() -> None:
    """A half-plane with pixels of 0.5 mm: border between columns 9 and 10, so centres at 0.25 mm from it."""
    inside = np.zeros((20, 20), bool)
    inside[:, :10] = True
    found = edge_map(inside, (0.5, 0.5), 0.5)[10]
    expected = 1 / (1 + np.exp(-(4.75 - 0.5 * np.arange(20)) / 0.5))
    assert np.allclose(found, expected, atol=1e-5)
    assert not edge_map(np.zeros((3, 3), bool), (1.0, 1.0), 0.5).any()


# -- doors ----------------------------------------------------------------------------------------------------------


def test_shipped_model_files_are_those_that_are_made(tmp_path) -> None:
    made = write_model_files(tmp_path)
    assert {path.stem for path in made} == set(METHODS) == set(HEADERS)
    for path in made:
        assert (TASK.resources / "Models" / path.name).read_bytes() == path.read_bytes()


def test_they_are_offered_last_and_never_by_default() -> None:
    listed = [model.name for model in installed_models(TASK)]
    assert set(listed[-2:]) == set(METHODS) and len(listed) > 2
    assert find_model(TASK).stem not in METHODS
    for name in METHODS:
        model = load_model(find_model(TASK, name), "hemorrhage")
        assert "not a trained network" in model.header["notice"] and "not a calibrated" in model.header["notice"]


@EVERY_MODEL
def test_the_task_runs_them_on_a_head(name: str) -> None:
    """The sphere of the phantom, by the whole pipeline, at its volume; the interval holds it and says what it is."""
    volume = small_head()
    result = TASK.run({"ct": volume}, load_model(find_model(TASK, name)), HemorrhageOptions(), Progress())
    total = result.measurements[0]
    assert total.value == pytest.approx(SPHERE_ML, rel=0.12)
    assert total.interval[0] < total.value < total.interval[1]
    assert "no probability" in total.note and "calibrated" not in total.note
    assert "Probability" not in result.maps["probability"].title
    k, j, i = np.indices(volume.array.shape)
    places = np.einsum("rc,c...->r...", volume.ijk_to_ras[:3], np.stack([i, j, k, np.ones_like(i)]).astype(np.float32))
    distance = np.linalg.norm(places - CENTRE_RAS[:, None, None, None], axis=0)
    assert (result.labels.array[distance < RADIUS_MM - 4] == 1).all()
    assert not result.labels.array[distance > RADIUS_MM + 6].any()
    assert not result.labels.array[volume.array > 300].any()


def test_a_tilted_head_is_no_matter() -> None:
    model = load_model(find_model(TASK, "hemorrhage-active-contour"))
    result = TASK.run({"ct": small_head(tilt_deg=15)}, model, HemorrhageOptions(), Progress())
    assert result.measurements[0].value == pytest.approx(SPHERE_ML, rel=0.12)


def test_legacy_option_reaches_the_methods_and_only_them() -> None:
    volume, options = small_head(), HemorrhageOptions(legacy_no_skull_strip=True)
    model = load_model(find_model(TASK, "hemorrhage-fuzzy-c-means"))
    result = TASK.run({"ct": volume}, model, options, Progress())
    assert result.measurements[0].value > 300  # the skull of the phantom
    assert any("bone is called blood" in warning for warning in result.warnings)
    with pytest.raises(InputError, match="legacy_no_skull_strip.*hemorrhage-drunet-starter"):
        TASK.run({"ct": volume}, load_model(find_model(TASK)), options, Progress())


def test_an_altered_file_is_refused(tmp_path) -> None:
    path = tmp_path / "changed.safetensors"
    content = (TASK.resources / "Models" / "hemorrhage-fuzzy-c-means.safetensors").read_bytes()
    path.write_bytes(content.replace(b"20.0", b"10.0"))
    with pytest.raises(ModelError, match="damaged or was altered"):
        TASK.run({"ct": small_head()}, load_model(path), HemorrhageOptions(), Progress())


def test_they_need_no_torch(tmp_path) -> None:
    """A whole run in a Python without torch."""
    code = (
        "import sys, numpy as np; sys.modules['torch'] = None\n"
        "from HemorrhageSegLib.task import TASK, HemorrhageOptions\n"
        "from NeuraxisLib.files import read_volume\n"
        "from NeuraxisLib.models import find_model, load_model\n"
        "from NeuraxisLib.task import Progress\n"
        "model = load_model(find_model(TASK, 'hemorrhage-fuzzy-c-means'))\n"
        "result = TASK.run({'ct': read_volume(sys.argv[1])}, model, HemorrhageOptions(), Progress())\n"
        "print(result.measurements[0].value)\n"
    )
    from NeuraxisLib.files import write_volume

    path = tmp_path / "head.nrrd"
    write_volume(small_head(), path)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=_environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr[-400:]
    assert float(done.stdout) == pytest.approx(SPHERE_ML, rel=0.12)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
