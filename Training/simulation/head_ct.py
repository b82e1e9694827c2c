"""Head CTs with bleeds of known place and volume, from two sources.

*Planted*: bleeds drawn into real bleed-free head CTs, whose texture, noise and artefacts stay.
*Synthetic*: whole heads made from label maps: deformed, given HU per tissue, scanned with thick slices, tilt, noise
and artefacts. Both return a :class:`SimulatedHead`; the same seed gives the same head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.volume import Volume
from Training.simulation import anatomy as anatomies
from Training.simulation import mimics, scanner
from Training.simulation.bleeds import KINDS, Anatomy, Bleed, draw_bleed, random_kind
from Training.simulation.fields import blur_mm
from Training.simulation.lesion_shapes import LesionShapes


@dataclass(frozen=True)
class SimulatedHead:
    """A simulated scan and its truth.

    Attributes:
        volume: CT in HU.
        truth: uint8 (k, j, i), value per kind of bleed (:data:`Training.simulation.bleeds.KINDS`).
        brain: bool (k, j, i), intracranial space.
        volumes_ml: kind -> mL of the truth.
    """

    volume: Volume
    truth: np.ndarray
    brain: np.ndarray
    volumes_ml: dict[str, float]


def plant(
    volume: Volume,
    anatomy: Anatomy,
    rng: np.random.Generator,
    bleeds: int | None = None,
    shapes: LesionShapes | None = None,
) -> SimulatedHead:
    """Plant bleeds into a real head CT.

    Args:
        volume: axial bleed-free CT in HU, (k, j, i).
        anatomy: its anatomy on a grid of a whole number of fine slices per slice, from
            :func:`Training.simulation.anatomy.of_real_head`.
        rng: source of every random choice.
        bleeds: how many; drawn (0 to 3) when None.
        shapes: real lesions whose shape some bleeds take; None draws all shapes by formula.
    """
    fine = anatomy.inside.shape[0] // volume.slice_count
    image = volume.array.astype(np.float32)
    brain = _slice_mean(anatomy.inside.astype(np.float32), fine) > 0.5
    background = _background(image, brain, volume.spacing_mm[::-1])
    truth = np.zeros(image.shape, np.uint8)
    for drawn in _draw(anatomy, rng, bleeds, shapes):
        k = slice(drawn.box[0].start // fine, -(-drawn.box[0].stop // fine))
        box = (k, *drawn.box[1:])
        occupancy, hu, oedema = (
            _to_slices(part, drawn.box[0], k, fine)
            for part in (drawn.occupancy, drawn.hu * drawn.occupancy, drawn.oedema)
        )
        hu = hu / np.maximum(occupancy, 1e-3)
        image[box] += occupancy * (hu - background[box]) - 8 * rng.uniform(0.4, 1.5) * oedema * brain[box]
        truth[box][occupancy > 0.5] = KINDS[drawn.kind]
    mimics.add_to_real(image, anatomy, fine, rng)
    return _head(volume.like(np.rint(np.clip(image, -1024, 3071)).astype(np.int16), "HU"), truth, brain)


def synthesise(
    labels: np.ndarray, rng: np.random.Generator, bleeds: int | None = None, shapes: LesionShapes | None = None
) -> SimulatedHead:
    """Make a whole head CT from a label map.

    Args:
        labels: whole-head label map at 1 mm, (k, j, i) axial (up, posterior, left), SynthSeg's values.
        rng: source of every random choice.
        bleeds: how many; drawn (0 to 3) when None.
        shapes: real lesions whose shape some bleeds take; None draws all shapes by formula.
    """
    labels = anatomies.deform(anatomies.crop_to_head(labels), rng)
    anatomy = anatomies.of_label_map(labels)
    image = anatomies.paint(labels, anatomy, rng)
    mimics.add_to_synthetic(image, labels, anatomy, rng)
    occupied = np.zeros(image.shape, np.float32)
    kinds = np.zeros(image.shape, np.uint8)
    for drawn in _draw(anatomy, rng, bleeds, shapes):
        inside = anatomy.inside[drawn.box]
        image[drawn.box] += drawn.occupancy * inside * (drawn.hu - image[drawn.box])
        image[drawn.box] -= 8 * rng.uniform(0.4, 1.5) * drawn.oedema * inside
        occupied[drawn.box] = np.maximum(occupied[drawn.box], drawn.occupancy * inside)
        kinds[drawn.box][drawn.occupancy * inside > 0.4] = KINDS[drawn.kind]
    return _head(*scanner.scan(image, occupied, kinds, anatomy, rng))


def _draw(anatomy: Anatomy, rng: np.random.Generator, count: int | None, shapes: LesionShapes | None) -> list[Bleed]:
    """The bleeds of one head; about one head in eight has none."""
    count = int(rng.choice([0, 1, 2, 3], p=[0.12, 0.38, 0.3, 0.2])) if count is None else count
    drawn = [draw_bleed(random_kind(rng), anatomy, rng, shapes) for _ in range(count)]
    return [bleed for bleed in drawn if bleed is not None]


def _slice_mean(fine_array: np.ndarray, fine: int) -> np.ndarray:
    """Average each run of ``fine`` slices into one."""
    return fine_array.reshape(-1, fine, *fine_array.shape[1:]).mean(axis=1)


def _to_slices(part: np.ndarray, fine_range: slice, slices: slice, fine: int) -> np.ndarray:
    """Average a box of fine slices into the source slices that it meets."""
    padded = np.zeros(((slices.stop - slices.start) * fine, *part.shape[1:]), np.float32)
    start = fine_range.start - slices.start * fine
    padded[start : start + part.shape[0]] = part
    return _slice_mean(padded, fine)


def _background(image: np.ndarray, brain: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Local mean of the brain without its noise (normalised blur inside the brain), HU."""
    soft = brain & (image > -20) & (image < 90)
    weight = blur_mm(soft.astype(np.float32), 2.0, (1e6, *spacing_mm[1:]))
    total = blur_mm(np.where(soft, image, 0).astype(np.float32), 2.0, (1e6, *spacing_mm[1:]))
    return np.where(weight > 0.02, total / np.maximum(weight, 0.02), 30).astype(np.float32)


def _head(volume: Volume, truth: np.ndarray, brain: np.ndarray) -> SimulatedHead:
    voxel = volume.voxel_volumes_ml[:, None, None]
    volumes = {kind: float(((truth == value) * voxel).sum()) for kind, value in KINDS.items()}
    return SimulatedHead(volume, truth, brain, {kind: ml for kind, ml in volumes.items() if ml > 0})
