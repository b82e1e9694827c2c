"""Exports, read back by programs that are not ours."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from NeuraxisLib.errors import GeometryError, InputError, OutputError
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.exports import label_volume, write_bids_derivative, write_disc_csv, write_disc_nifti
from SpineDiscLabelLib.naming import NamedDisc

POINTS = {23: (1.0, -20.0, 40.0), 24: (2.0, -25.0, 5.0), 25: (1.5, -18.0, -30.0)}
NAMES = {23: "L3/L4", 24: "L4/L5", 25: "L5/S1"}
DISCS = [NamedDisc(number, NAMES[number], np.array(point), 0.9, None) for number, point in POINTS.items()]


def sagittal(flip: bool = False, oblique_deg: float = 0.0) -> Volume:
    """A sagittal grid as scanners store it: i to the back, j downward, k to the left (or right)."""
    turn = np.radians(oblique_deg)
    axes = np.array([[0, 0, -1.0], [-1, 0, 0], [0, -1, 0]])  # columns: i, j, k in RAS
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ axes * (0.8, 0.8, -3.3 if flip else 3.3)
    shape = np.array((60, 120, 15))
    matrix[:3, 3] = -matrix[:3, :3] @ (shape - 1) / 2 + (0, -20, 0)
    return Volume(np.zeros(shape[::-1], np.int16), matrix)


@pytest.mark.parametrize("grid", [sagittal(), sagittal(flip=True), sagittal(oblique_deg=12)], ids=["L", "R", "oblique"])
def test_nifti_holds_one_voxel_per_disc_where_the_disc_is(grid, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    write_disc_nifti(DISCS, grid, tmp_path / "labels.nii.gz")
    image = nibabel.load(tmp_path / "labels.nii.gz")
    array = np.asarray(image.dataobj)
    assert array.shape == grid.array.shape[::-1] and array.dtype == np.uint8
    np.testing.assert_allclose(image.affine, grid.ijk_to_ras, atol=1e-4)
    assert sorted(array[array > 0]) == [23, 24, 25]
    for number, point in POINTS.items():
        found = image.affine @ [*np.argwhere(array == number)[0], 1]
        half = np.abs(grid.ijk_to_ras[:3, :3]).sum(axis=1) / 2
        assert (np.abs(found[:3] - point) <= half + 1e-4).all()


def test_labels_survive_the_toolbox_s_reorientation(tmp_path):
    """"RPI" in the toolbox's words is "LAS" in nibabel's: reorienting image and label alike keeps them together."""
    nibabel = pytest.importorskip("nibabel")
    write_disc_nifti(DISCS, sagittal(), tmp_path / "labels.nii.gz")
    turned = nibabel.as_closest_canonical(nibabel.load(tmp_path / "labels.nii.gz"))
    assert "".join(nibabel.aff2axcodes(turned.affine)) == "RAS"
    heights = {int(turned.get_fdata()[tuple(v)]): (turned.affine @ [*v, 1])[2] for v in np.argwhere(turned.get_fdata())}
    assert heights[23] > heights[24] > heights[25]


def test_labels_can_lie_at_the_back_edge():
    grid = sagittal()
    centre, back = (np.argwhere(label_volume(DISCS, grid, mm).array == 24)[0] for mm in (0.0, 8.0))
    assert (back - centre).tolist() == [0, 0, 10]  # i runs to the back in 0.8 mm


def test_slices_at_unequal_gaps():
    grid = sagittal()
    origins = grid.origins_ras.copy()
    origins[8:] += 2 * grid.ijk_to_ras[:3, 2]  # two slices missing between the eighth and the ninth
    uneven = Volume(grid.array, grid.ijk_to_ras, slice_origins_ras=origins)
    disc = NamedDisc(24, "L4/L5", origins[9] + 20 * grid.row_step_ras + 30 * grid.column_step_ras, 0.9, None)
    assert np.argwhere(label_volume([disc], uneven).array == 24).tolist() == [[9, 20, 30]]


def test_what_cannot_be_written():
    grid = sagittal()
    with pytest.raises(GeometryError, match="L4/L5 lies outside"):
        label_volume([NamedDisc(24, "L4/L5", np.array([0.0, 0, 500]), 0.9, None)], grid)
    with pytest.raises(InputError, match="same voxel"):
        label_volume([DISCS[0], NamedDisc(24, "L4/L5", DISCS[0].position_ras_mm, 0.9, None)], grid)
    with pytest.raises(OutputError, match="no NIfTI name"):
        write_disc_nifti(DISCS, grid, "labels.nrrd")


def test_csv(tmp_path):
    write_disc_csv(DISCS, tmp_path / "discs.csv")
    with open(tmp_path / "discs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["L3/L4", "L4/L5", "L5/S1"]
    assert [float(rows[1][axis]) for axis in ("R_mm", "A_mm", "S_mm")] == [2.0, -25.0, 5.0]
    assert rows[2]["disc"] == "25"


def test_bids_derivative(tmp_path):
    path = write_bids_derivative(DISCS, sagittal(), tmp_path, "sub-07", session="2", backward_mm=6.0)
    place = path.relative_to(tmp_path).as_posix()
    assert place == "derivatives/labels/sub-07/ses-2/anat/sub-07_ses-2_T2w_label-discs_dlabel.nii.gz"
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Labels"] == {"23": "L3/L4", "24": "L4/L5", "25": "L5/S1"}
    assert "6 mm behind" in sidecar["LabelPosition"] and sidecar["Reviewed"] is False and "Warning" not in sidecar
    description = tmp_path / "derivatives/labels/dataset_description.json"
    assert json.loads(description.read_text())["DatasetType"] == "derivative"
    description.write_text("{}")
    write_bids_derivative(DISCS, sagittal(), tmp_path, "08")
    assert description.read_text() == "{}"  # what is there already is not replaced
    assert not [p for p in tmp_path.rglob(".*")]


def test_bids_says_what_a_sixth_lumbar_vertebra_does(tmp_path):
    six = [NamedDisc(25, "L5/L6", np.array([0.0, -20, 5]), 0.9, None), NamedDisc(26, "L6/S1", np.zeros(3), 0.9, None)]
    path = write_bids_derivative(six, sagittal(), tmp_path, "1")
    assert "lumbar" in json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())["Warning"]


def test_bids_labels_are_letters_and_digits(tmp_path):
    with pytest.raises(InputError, match="no BIDS label"):
        write_bids_derivative(DISCS, sagittal(), tmp_path, "a/../b")
    with pytest.raises(OutputError, match="does not exist"):
        write_bids_derivative(DISCS, sagittal(), tmp_path / "nowhere", "1")
    assert list(tmp_path.iterdir()) == []
