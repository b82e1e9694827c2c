"""Layouts of spines: masks, single-voxel labels, and the traps in their numbers."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from Training import prepare
from Training.discs_cases import painted_from, real_spine
from Training.layouts import get_layout, spine_masks, spine_points
from Training.layouts.base import LayoutOptions
from Training.layouts.spine_labels import (
    CANAL,
    DISC,
    VERTEBRA,
    DiscPoints,
    checked,
    from_below,
    moved_to_centres,
    spacing_mm,
)
from Training.simulation.spine_tissues import Tissue
from Training.store import Store

#: Columns run posterior, rows inferior, slices to the right; voxels of 2 x 2 x 4 mm.
MATRIX = np.array([[0, 0, 4.0, -8], [-2.0, 0, 0, 40], [0, -2.0, 0, 60], [0, 0, 0, 1]])
SHAPE = (5, 90, 40)
ROWS = (12, 30, 49, 69)  # of four discs


def lumbar_mask() -> np.ndarray:
    """Three vertebrae, canal and four discs: 1, 2, 3."""
    mask = np.zeros(SHAPE, np.uint8)
    for above, below in pairwise(ROWS):
        mask[:, above + 2 : below - 1, 8:24] = 1
    mask[:, 5:80, 26:32] = 2
    for row in ROWS:
        mask[1:4, row - 1 : row + 2, 8:24] = 3
    return mask


def image_of(mask: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 20, mask.shape)
    return (noise + np.array([40, 120, 250, 60])[np.minimum(mask, 3)]).astype(np.int16)


def ras(k: float, j: float, i: float) -> np.ndarray:
    return (MATRIX @ np.array([i, j, k, 1.0]))[:3]


@pytest.fixture
def by_class(tmp_path):
    """NAME_t2.nii.gz beside NAME_label.nii.gz; a speck of disc in the second."""
    folder = tmp_path / "classes"
    folder.mkdir()
    for name in ("7", "8"):
        mask = lumbar_mask()
        if name == "8":
            mask[2, 80:82, 12:14] = 3
        write_volume(Volume(image_of(mask), MATRIX), folder / f"{name}_t2.nii.gz")
        write_volume(Volume(mask, MATRIX), folder / f"{name}_label.nii.gz")
    return folder


def read_first(layout, folder, **options):
    told = LayoutOptions(**options)
    found = layout.find(folder, told)
    assert not found.findings
    return layout.read(found.sources[0], told)


def test_discs_of_a_class_mask_are_counted_from_the_lowest(by_class):
    told = LayoutOptions()
    for source in spine_masks.find(by_class, told).sources:
        case = spine_masks.read(source, told)
        assert [disc[0] for disc in case.provenance["discs"]] == [22, 23, 24, 25]  # the speck is none
        for disc, row in zip(case.provenance["discs"], ROWS):
            assert disc[1:] == pytest.approx(ras(2, row, 15.5).tolist(), abs=1e-3)
        assert {VERTEBRA, CANAL, DISC} == set(np.unique(case.truth)) - {0}


def test_a_list_says_which_discs_count(by_class):
    listed = {"7": {"discs": [{"from_bottom": n + 1, "ras_mm": ras(2, row, 15).tolist()}
                              for n, row in enumerate(ROWS[:3][::-1])]}}  # fmt: skip
    (by_class / "disc_centres.json").write_text(json.dumps(listed))
    case = read_first(spine_masks, by_class)  # the lowest one is that of the first two sacral segments
    assert [disc[0] for disc in case.provenance["discs"]] == [23, 24, 25]
    assert case.provenance["discs"][-1][3] == pytest.approx(ras(2, ROWS[2], 0)[2])
    assert any("1 discs of the mask are not in the list" in text for text in case.provenance["warnings"])
    listed["7"]["discs"][0]["ras_mm"][2] -= 60
    (by_class / "disc_centres.json").write_text(json.dumps(listed))
    source = spine_masks.find(by_class, LayoutOptions()).sources[0]
    with pytest.raises(InputError, match="lies at no disc of the mask"):
        spine_masks.read(source, LayoutOptions())


def test_spider_numbers_carry_the_level(tmp_path):
    plain, mask = lumbar_mask(), np.zeros(SHAPE, np.int16)
    for number, (above, below) in enumerate(pairwise(ROWS)):
        mask[:, above + 2 : below - 1, 8:24] = 4 - number  # vertebrae from below; L5 is 1, here L4, L3, L2
    mask[plain == 2] = 100
    for number, row in enumerate(ROWS):
        mask[1:4, row - 1 : row + 2, 8:24] = 205 - number  # the lowest one in view is L4/L5, 202
    for kind, array in (("images", image_of(plain)), ("masks", mask)):
        (tmp_path / kind).mkdir()
        write_volume(Volume(array, MATRIX), tmp_path / kind / "4_t1.nii.gz")
    case = read_first(spine_masks, tmp_path)
    assert [disc[0] for disc in case.provenance["discs"]] == [21, 22, 23, 24]
    assert case.patient == "4" and (case.truth[plain == 2] == CANAL).all()


def test_a_mask_in_other_numbers_is_refused(by_class):
    mask = lumbar_mask() * 7
    write_volume(Volume(mask, MATRIX), by_class / "7_label.nii.gz")
    with pytest.raises(InputError, match="neither in SPIDER's numbers"):
        spine_masks.read(spine_masks.find(by_class, LayoutOptions()).sources[0], LayoutOptions())


def test_a_mask_becomes_a_spine_for_training_real_and_painted(by_class):
    spine = real_spine(read_first(spine_masks, by_class))
    assert spine.planes.shape == SHAPE and spine.spacing == pytest.approx([4, 2, 2])
    for (x, row, column), true_row in zip(spine.points, ROWS):
        assert (x / 4, row / 2, column / 2) == pytest.approx((2, true_row, 15.5), abs=1e-3)
    painted = painted_from(spine)
    tissue = painted.codes[2] >> 8
    assert tissue[ROWS[1], 15] in (Tissue.ANNULUS, Tissue.NUCLEUS) and tissue[40, 29] in (Tissue.CSF, Tissue.ROOTS)
    assert tissue[ROWS[1] + 8, 15] == Tissue.MARROW and painted.numbers.tolist() == [22, 23, 24, 25]


# -- single voxels ----------------------------------------------------------------------------------------------


def cervical_points(numbers=(2, 3, 4, 5, 6, 7, 8)) -> np.ndarray:
    """Points straight below each other as far apart as in an average adult."""
    down = np.cumsum([0.0, *(spacing_mm(n) for n in range(2, 8))])
    return np.array([(1.0, -20.0, 50 - down[n - 2]) for n in numbers])


def write_labels(path, labels: dict[int, tuple[int, int, int]], dtype=np.uint8):
    array = np.zeros(SHAPE, dtype)
    for value, at in labels.items():
        array[at] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(array, MATRIX), path)


@pytest.fixture
def generic(tmp_path):
    """Two subjects of spine-generic: new names for one, old names for the other's T2w, a T1w without labels."""
    for subject, contrast in (("sub-a", "T2w"), ("sub-b", "T2w"), ("sub-b", "T1w")):
        path = tmp_path / subject / "anat" / f"{subject}_{contrast}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(Volume(image_of(lumbar_mask()), MATRIX), path)
    labels = tmp_path / "derivatives" / "labels"
    rows = {1: 3, 2: 10, 3: 18, 4: 27, 5: 36, 50: 1}
    write_labels(
        labels / "sub-a/anat/sub-a_T2w_label-discs_dlabel.nii.gz", {v: (2, row, 20) for v, row in rows.items()}
    )
    write_labels(
        labels / "sub-b/anat/sub-b_T2w_labels-disc-manual.nii.gz",
        {v: (2, rows[v], 20) for v in (3, 4, 5)}, np.float32,
    )  # fmt: skip
    return tmp_path


def test_spine_generic_of_both_years_gives_the_same_numbers_at_the_same_places(generic):
    told = LayoutOptions(disc_points="centre")
    sources = spine_points.find(generic, told).sources
    assert [source.id for source in sources] == ["sub-a_T2w", "sub-b_T2w"]
    new, old = (spine_points.read(source, told) for source in sources)
    assert [disc[0] for disc in new.provenance["discs"]] == [2, 3, 4, 5]
    assert old.provenance["discs"] == new.provenance["discs"][1:]  # nothing shifts where C1/C2 is not labelled
    warnings = " ".join(new.provenance["warnings"])
    assert "label 1 is the top of C1" in warnings and "brainstem" in warnings
    assert new.provenance["discs"][0][1:] == pytest.approx(ras(2, 10, 20).tolist())


def test_labels_at_the_back_edge_are_moved_forward_by_half_a_depth(generic):
    case = read_first(spine_points, generic)
    moved = np.array(case.provenance["discs"])[:, 1:] - [ras(2, row, 20) for row in (10, 18, 27, 36)]
    assert (moved[:, 1] > 5).all() and (moved[:, 1] < 11).all()  # anterior
    assert np.abs(moved[:, [0, 2]]).max() < 0.5
    assert "disc centres estimated" in case.flags


def test_sct_labels_beside_their_images(tmp_path):
    write_volume(Volume(image_of(lumbar_mask()), MATRIX), tmp_path / "t2.nii.gz")
    write_labels(tmp_path / "t2_label-disc.nii.gz", {20: (2, 12, 20), 21: (2, 30, 20), 22: (2, 49, 20)})
    case = read_first(get_layout("sct-discs"), tmp_path, disc_points="centre")
    assert [disc[0] for disc in case.provenance["discs"]] == [20, 21, 22]
    write_labels(tmp_path / "t1_label-disc.nii.gz", {3: (2, 12, 20)})
    found = spine_points.find(tmp_path, LayoutOptions())
    assert [finding.fault for finding in found.findings] == [True]


def test_a_label_at_two_places_is_refused(tmp_path):
    write_volume(Volume(image_of(lumbar_mask()), MATRIX), tmp_path / "t2.nii.gz")
    array = np.zeros(SHAPE, np.uint8)
    array[2, 12, 20] = array[2, 40, 20] = 5
    write_volume(Volume(array, MATRIX), tmp_path / "t2_label-disc.nii.gz")
    with pytest.raises(InputError, match="label 5 is given at two places"):
        read_first(spine_points, tmp_path)


# -- numbers ----------------------------------------------------------------------------------------------------


def test_numbers_that_run_upwards_are_refused():
    points = cervical_points()
    with pytest.raises(InputError, match="C2/C3 is not below C1/C2"):
        checked([2, 3], points[[1, 0]])
    with pytest.raises(InputError, match="no disc from"):
        checked([1, 49], points[:2])


def test_gaps_in_numbers_or_in_space_are_told():
    assert checked(range(2, 9), cervical_points()).warnings == []
    missing = checked([2, 3, 5, 6, 7, 8], cervical_points((2, 3, 5, 6, 7, 8)))
    assert any("C3/C4" in text and "taught as absent" in text for text in missing.warnings)
    shifted = checked([2, 3, 4, 5, 6, 7], cervical_points((2, 3, 4, 6, 7, 8)))  # C4/C5 was left out, all below shift
    assert any("C3/C4 and C4/C5 lie far apart" in text for text in shifted.warnings)


def test_discs_from_below_and_too_many_of_them():
    points = cervical_points()
    assert from_below(points[::-1]).numbers == list(range(19, 26))
    with pytest.raises(InputError, match="cannot be numbered"):
        from_below(np.array([(0.0, 0.0, -20.0 * n) for n in range(25)]))


def test_moving_follows_a_tilted_chain():
    turn = np.deg2rad(30)
    points = cervical_points((3, 4, 5))
    lean = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    straight = moved_to_centres(DiscPoints([3, 4, 5], points)).ras_mm - points
    leaning = moved_to_centres(DiscPoints([3, 4, 5], points @ lean.T)).ras_mm - points @ lean.T
    assert leaning == pytest.approx(straight @ lean.T, abs=1e-6)
    assert straight[:, 1] == pytest.approx([8.0, 8.0, 8.25], abs=0.3)


def test_prepare_puts_spines_into_a_store(by_class, tmp_path, capsys):
    store = tmp_path / "spines.h5"
    words = [str(by_class), str(store), "--layout", "spine-masks", "--split", "train=1,val=1", "--workers", "1"]
    assert prepare.main(words) == 0
    with Store(store) as opened:
        cases = [opened.case(info.id) for info in opened]
    assert [disc[0] for disc in cases[0].provenance["discs"]] == [22, 23, 24, 25]
    assert real_spine(cases[1]).labels.max() == 3


@pytest.mark.slow
def test_simulated_spines_are_written_prepared_and_keep_their_discs(tmp_path, monkeypatch):
    from Training import simulate, simulated_spines
    from Training.simulation import spine_mr

    monkeypatch.setattr(
        simulated_spines, "simulate_spine", lambda rng, region: spine_mr.simulate_spine(rng, region, True, 2.5)
    )
    folder = tmp_path / "made"
    words = [str(folder), "--spines", "1", "--region", "lumbar", "--format", "nii.gz", "--workers", "1"]
    assert simulate.main(words) == 0
    before = (folder / "spines" / "spine_00000.nii.gz").stat().st_mtime_ns
    assert simulate.main(words) == 0  # what is there is not made again
    assert (folder / "spines" / "spine_00000.nii.gz").stat().st_mtime_ns == before
    exact = json.loads((folder / "discs.json").read_text())["spines"]["spine_00000"]["discs"]
    case = read_first(spine_points, folder, disc_points="centre")
    assert [disc[0] for disc in case.provenance["discs"]] == [disc[0] for disc in exact]
    apart = np.array(case.provenance["discs"])[:, 1:] - np.array(exact)[:, 1:]
    assert np.abs(apart).max() <= 0.51 * max(case.image.spacing_mm) * 1.2
    assert simulate.main([*words, "--planted", "1"]) == 1
