"""Distances, angles and heights against chains whose measures are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.disc_height import ENDPLATES_MM, disc_height_mm, sample
from SpineDiscLabelLib.discs import DISC_NAMES
from SpineDiscLabelLib.naming import NamedDisc
from SpineDiscLabelLib.spine_measures import chain_angles_deg, measure_spine, sideways_mm


def chain(points: np.ndarray, first: int) -> list[NamedDisc]:
    return [NamedDisc(first + i, DISC_NAMES[first + i], np.asarray(p, float), 0.9, i) for i, p in enumerate(points)]


def arc(count: int, radius_mm: float, step_deg: float, start_deg: float) -> np.ndarray:
    """Points on a circle seen from the side; each step turns by ``step_deg``; directions at points are exact."""
    angle = np.radians(start_deg + step_deg * np.arange(count))
    return np.stack([np.zeros(count), radius_mm * np.cos(angle), -radius_mm * np.sin(angle)], axis=1)


def test_a_circular_arc_gives_its_angle():
    points = arc(6, 200.0, 10.0, -25.0)
    sagittal, coronal = chain_angles_deg(points)
    np.testing.assert_allclose(np.diff(sagittal), 10.0, atol=1e-6)
    np.testing.assert_allclose(sagittal, -25.0 + 10.0 * np.arange(6), atol=1e-6)
    np.testing.assert_allclose(coronal, 0, atol=1e-9)


def test_lordosis_and_kyphosis_are_positive_where_they_should_be():
    lumbar = {m.name: m for m in measure_spine(chain(arc(6, 200.0, 10.0, -25.0), 20)).measurements}
    assert lumbar["Lumbar lordosis"].value == pytest.approx(50.0)
    assert lumbar["Lordosis of the chain"].value == pytest.approx(50.0)
    assert lumbar["Length of the chain"].value == pytest.approx(5 * 2 * 200 * np.sin(np.radians(5)))
    assert "not between endplates" in lumbar["Lumbar lordosis"].note
    backward = arc(12, 200.0, 3.0, -16.5) * (1, -1, 1)
    thoracic = {m.name: m.value for m in measure_spine(chain(backward, 9)).measurements}
    assert thoracic["Thoracic kyphosis"] == pytest.approx(33.0)
    assert "Lumbar lordosis" not in thoracic and "Cervical lordosis" not in thoracic


def test_table_of_a_straight_chain():
    points = [[0, 0, 0], [0, 0, -30], [3, 0, -60], [0, 0, -90]]
    table = measure_spine(chain(points, 22)).table
    assert [head for head, _ in table.columns][5:8] == [
        "Distance to the next below", "Angle to the next below", "Sideways deviation",
    ]  # fmt: skip
    assert [row[0] for row in table.rows] == ["L2/L3", "L3/L4", "L4/L5", "L5/S1"]
    assert table.rows[0][5] == 30.0 and table.rows[1][5] == pytest.approx(30.15)
    assert [row[7] for row in table.rows] == [0.0, 0.0, 3.0, 0.0]
    assert table.rows[-1][5] is None and table.rows[0][8] is None


def test_sideways_deviation_is_from_the_line_between_the_ends():
    points = np.array([[10.0, 0, 0], [10, 5, -50], [0, 5, -50], [0, 0, -100]])
    expected = np.array([5, -5]) * 100 / np.hypot(10, 100)
    np.testing.assert_allclose(sideways_mm(points)[1:3], expected)
    measures = {m.name: m for m in measure_spine(chain(points, 22)).measurements}
    assert abs(measures["Largest sideways deviation"].value) == pytest.approx(expected[0])


def test_short_chains():
    assert measure_spine([]).table.rows == ()
    one = measure_spine(chain([[0, 0, 0]], 25))
    assert one.measurements == [] and one.table.rows[0][5:] == (None, None, None, None)
    two = measure_spine(chain([[0, 0, 0], [0, 0, -35]], 24))
    assert two.table.rows[0][5] == 35.0 and two.table.rows[0][6] is None


def layered(height_mm: float, tilt_deg: float = 0.0, endplate_mm: float = ENDPLATES_MM / 2) -> Volume:
    """Marrow 100, a disc of this height 40 at RAS 0, and dark endplates 10 beside it; smoothed by the voxels alone."""
    size, spacing = 81, 0.5
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = -spacing * (size - 1) / 2
    k, j, _ = np.meshgrid(*[np.arange(size)] * 3, indexing="ij")
    a, s = (j - 40) * spacing, (k - 40) * spacing
    along = np.abs(s * np.cos(np.radians(tilt_deg)) + a * np.sin(np.radians(tilt_deg)))
    array = np.where(along < height_mm / 2, 40.0, np.where(along < height_mm / 2 + endplate_mm, 10.0, 100.0))
    return Volume(array.astype(np.float32), matrix)


@pytest.mark.parametrize(("height", "tilt"), [(6.0, 0.0), (9.0, 0.0), (9.0, 20.0)])
def test_height_of_a_disc_of_known_height(height, tilt):
    direction = np.array([[0.0, np.sin(np.radians(tilt)), np.cos(np.radians(tilt))]])
    found = disc_height_mm(np.zeros((1, 3)), direction, layered(height, tilt))
    assert found[0] == pytest.approx(height, abs=0.5)


def test_no_height_where_there_is_no_edge():
    up = np.array([[0.0, 0.0, 1.0]])
    flat = layered(9.0)
    flat = flat.like(np.full_like(flat.array, 70.0))
    assert disc_height_mm(np.zeros((1, 3)), up, flat) == [None]
    assert disc_height_mm(np.array([[0.0, 0.0, 15.0]]), up, layered(9.0)) == [None]  # the image ends


def test_sampling_is_trilinear_and_knows_its_border():
    k, j, i = np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij")
    volume = Volume(100 * k + 10 * j + i, np.diag([2.0, 2.0, 2.0, 1.0]))
    np.testing.assert_allclose(sample(volume, np.array([[1.0, 3.0, 5.0]])), [100 * 2.5 + 10 * 1.5 + 0.5])
    assert np.isnan(sample(volume, np.array([[-1.1, 0, 0]]))).all()
    assert sample(volume, np.array([[-0.9, 0, 0]])) == [0.0]


def test_heights_on_real_scans(shared_data):
    """Against the outlined discs of two training patients."""
    from dataclasses import replace
    from json import loads

    from NeuraxisLib.files import read_volume
    from SpineDiscLabelLib.disc_height import STEP_MM, profile_at

    folder, errors = shared_data / "spine_mr_training", []
    cases = loads((folder / "disc_centres.json").read_text())
    for name in ("41", "209"):
        points = np.array([d["ras_mm"] for d in sorted(cases[name]["discs"], key=lambda d: -d["from_bottom"])])
        image, labels = (read_volume(folder / f"{name}_{kind}.nii.gz") for kind in ("t2space", "label"))
        outlined = replace(labels, array=(labels.array == 3).astype(float))
        steps = points[:-1] - points[1:]
        directions = np.vstack([steps, steps[-1:]]) / np.linalg.norm(np.vstack([steps, steps[-1:]]), axis=1)[:, None]
        for point, up, height in zip(points, directions, disc_height_mm(points, directions, image)):
            truth = profile_at(outlined, point, up)
            if truth is not None and height is not None:
                errors.append(height - truth.sum() * STEP_MM)
    assert len(errors) >= 10
    assert np.mean(np.abs(errors)) < 1.8
