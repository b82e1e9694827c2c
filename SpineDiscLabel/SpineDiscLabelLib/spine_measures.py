"""Measures of a chain of discs: distances, curvature in degrees, sideways deviation, disc heights.

All angles come from the chain of disc centres, as endplates are not outlined. The direction of the spine at a disc is
that of the smooth curve through the centres: halfway between the steps to its neighbours, and at an end of the chain
continued by half of the last bend. An angle between two discs is the difference of these directions, seen from the
side (sagittal plane of the scanner's axes); lordosis counts positive. It resembles a Cobb angle between the mid-planes
of the two discs, not one between endplates: a wedged end disc does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.result import Measurement, Table
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.anatomy import REGIONS
from SpineDiscLabelLib.disc_height import disc_height_mm
from SpineDiscLabelLib.naming import NamedDisc

COLUMNS = (
    ("Disc", ""),
    ("Confidence", ""),
    ("R", "mm"),
    ("A", "mm"),
    ("S", "mm"),
    ("Distance to the next below", "mm"),
    ("Angle to the next below", "degrees"),
    ("Sideways deviation", "mm"),
    ("Disc height", "mm"),
)
ANGLE_NOTE = "Between the directions of the chain of disc centres at both discs, from the side; not between endplates."
DEVIATION_NOTE = "From the straight line between the ends of the chain; positive to the patient's right; lying."
CORONAL_NOTE = "Largest difference of the chain's directions, from the front; not a Cobb angle between endplates."


@dataclass(frozen=True)
class SpineMeasures:
    """What was measured on a chain.

    Attributes:
        measurements: angles of the regions in view and of the whole chain, length, sideways deviation.
        table: one row per disc, from above.
    """

    measurements: list[Measurement]
    table: Table


def measure_spine(discs: Sequence[NamedDisc], image: Volume | None = None) -> SpineMeasures:
    """Measure a named chain.

    Args:
        discs: from above, as :attr:`~SpineDiscLabelLib.naming.Chain.discs`.
        image: the MR, for disc heights; None leaves them out.
    """
    points = np.array([disc.position_ras_mm for disc in discs], float).reshape(-1, 3)
    sagittal, coronal = chain_angles_deg(points)
    lateral = sideways_mm(points)
    heights = [None] * len(discs)
    if image is not None and len(discs) > 1:
        heights = disc_height_mm(points, _directions(sagittal, coronal), image)
    rows = []
    for i, disc in enumerate(discs):
        follows = i + 1 < len(discs)
        distance = float(np.linalg.norm(points[i + 1] - points[i])) if follows else None
        angle = float(sagittal[i + 1] - sagittal[i]) if follows and len(discs) > 2 else None
        beside = float(lateral[i]) if len(discs) > 2 else None
        numbers = (float(disc.confidence), *points[i], distance, angle, beside, heights[i])
        rows.append((disc.name, *(None if value is None else round(float(value), 2) for value in numbers)))
    return SpineMeasures(_measurements(discs, points, sagittal, coronal, lateral), Table("Discs", COLUMNS, tuple(rows)))


def chain_angles_deg(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) direction of the chain at each point against the long axis, in degrees.

    Args:
        points: (n, 3) RAS mm, from above.

    Returns:
        from the side (positive: leaning forward toward the head) and from the front (positive: to the right).
    """
    if len(points) < 2:
        return np.zeros(len(points)), np.zeros(len(points))
    r, a, s = (points[:-1] - points[1:]).T
    return _at_points(np.degrees(np.arctan2(a, s))), _at_points(np.degrees(np.arctan2(r, s)))


def _at_points(steps: np.ndarray) -> np.ndarray:
    """Angles at points from angles of the steps between: the mean of both, extended by half a bend at the ends."""
    if len(steps) == 1:
        return np.repeat(steps, 2)
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[1.5 * steps[0] - 0.5 * steps[1]], middle, [1.5 * steps[-1] - 0.5 * steps[-2]]])


def _directions(sagittal: np.ndarray, coronal: np.ndarray) -> np.ndarray:
    """(n, 3) unit vectors toward the head."""
    vectors = np.stack([np.tan(np.radians(coronal)), np.tan(np.radians(sagittal)), np.ones(len(sagittal))], axis=1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sideways_mm(points: np.ndarray) -> np.ndarray:
    """(n,) how far each point lies to the right of the line from the first to the last, seen from the front."""
    if len(points) < 3:
        return np.zeros(len(points))
    line = points[-1, [0, 2]] - points[0, [0, 2]]
    length = np.linalg.norm(line)
    if length == 0:
        return np.zeros(len(points))
    offset = points[:, [0, 2]] - points[0, [0, 2]]
    return (offset[:, 1] * line[0] - offset[:, 0] * line[1]) / length


def _measurements(
    discs: Sequence[NamedDisc], points: np.ndarray, sagittal: np.ndarray, coronal: np.ndarray, lateral: np.ndarray
) -> list[Measurement]:
    if len(discs) < 3:
        return []
    place = {disc.name: i for i, disc in enumerate(discs)}
    result = []
    for region, (upper, lower) in REGIONS.items():
        if upper in place and lower in place:
            angle = float(sagittal[place[lower]] - sagittal[place[upper]])
            value = -angle if "kyphosis" in region else angle
            result.append(Measurement(region, value, "degrees", note=f"{upper} to {lower}. {ANGLE_NOTE}"))
    span = f"{discs[0].name} to {discs[-1].name}"
    whole = float(sagittal[-1] - sagittal[0])
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    furthest = int(np.argmax(np.abs(lateral)))
    beside = f"{discs[furthest].name}. {DEVIATION_NOTE}"
    return [
        *result,
        Measurement("Lordosis of the chain", whole, "degrees", note=f"{span}; negative is kyphosis. {ANGLE_NOTE}"),
        Measurement("Length of the chain", length, "mm", note=f"{span}, from centre to centre."),
        Measurement("Largest sideways deviation", float(lateral[furthest]), "mm", note=beside),
        Measurement("Coronal angle", float(np.ptp(coronal)), "degrees", note=CORONAL_NOTE),
    ]
