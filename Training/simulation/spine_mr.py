"""Simulated sagittal spine MR as a scanner would give it, with the exact centres and numbers of its discs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.discs import FIRST_DISC, LAST_DISC
from Training.simulation.spine_anatomy import Spine, draw_spine
from Training.simulation.spine_bank import PaintedSpine, paint
from Training.simulation.spine_pathology import add_pathology
from Training.simulation.spine_scanner import TEMPLATE, Look, draw_look, grey_of_codes, scanned, textured
from Training.simulation.spine_tissues import Contrast, Tissue, draw_contrast

#: Region -> (first and last disc around which the field of view lies, least and largest height in mm).
REGIONS = {
    "cervical": (FIRST_DISC, 9, 160, 280), "thoracic": (9, 20, 240, 400), "lumbar": (20, LAST_DISC, 210, 350),
    "whole": (FIRST_DISC, LAST_DISC, 480, 800),
}  # fmt: skip
#: Painted pixels; finer ones change nothing that a scanner could see.
_PAINTED_MM = 0.6


@dataclass(frozen=True)
class Protocol:
    """How a series is acquired: slices along right-left, pixels in the sagittal plane.

    Attributes:
        region: one of :data:`REGIONS`. pixel_mm: 0.3 to 1.2. gap_mm: between slices. thickness: share of the gap that a
            slice averages. slices: their number. height_mm, width_mm: field of view. oblique_deg: turn of the patient.
    """

    region: str
    pixel_mm: float
    gap_mm: float
    thickness: float
    slices: int
    height_mm: float
    width_mm: float
    oblique_deg: tuple[float, float, float]


@dataclass(frozen=True)
class SimulatedSpine:
    """A series and its truth: ``numbers[i]`` of the disc at ``ras_mm[i]``, only discs within the volume."""

    volume: Volume
    numbers: list[int]
    ras_mm: np.ndarray
    kind: str


def draw_protocol(rng: np.random.Generator, region: str = "", straight: bool = False) -> Protocol:
    """A random protocol: thick slices, or isotropic ones as of 3-D sequences."""
    region = region or str(rng.choice(list(REGIONS), p=[0.3, 0.2, 0.35, 0.15]))
    low, high = REGIONS[region][2:]
    thin = straight or rng.random() < 0.3
    gap = float(rng.uniform(0.8, 1.2) if thin else rng.uniform(3.0, 5.0))
    slices = int(np.clip(rng.uniform(40, 64) / gap, 9, 48))
    narrow = straight or rng.random() < 0.1
    return Protocol(
        region=region,
        pixel_mm=float(rng.uniform(0.8, 1.2) if thin else np.exp(rng.uniform(np.log(0.3), np.log(1.2)))),
        gap_mm=gap,
        thickness=float(rng.uniform(0.75, 1.0)),
        slices=slices,
        height_mm=float(rng.uniform(low, high)),
        width_mm=float(rng.uniform(60, 100) if narrow else rng.uniform(150, 300)),
        oblique_deg=tuple(rng.normal(0, 3, 3)),
    )


def simulate_spine(
    rng: np.random.Generator, region: str = "", straight: bool | None = None, painted_mm: float = _PAINTED_MM
) -> SimulatedSpine:
    """A random person, contrast, scanner and protocol.

    Args:
        region: one of :data:`REGIONS`; any by default.
        straight: made like an averaged template; one in twelve by default.
        painted_mm: side of the painted pixels; larger ones are quicker and coarser.
    """
    straight = rng.random() < 1 / 12 if straight is None else straight
    spine = draw_spine(rng, straight)
    if not straight:
        add_pathology(spine, rng)
    look = TEMPLATE if straight else draw_look(rng)
    return acquire(spine, draw_protocol(rng, region, straight), draw_contrast(rng), look, rng, painted_mm)


def acquire(
    spine: Spine,
    protocol: Protocol,
    contrast: Contrast,
    look: Look,
    rng: np.random.Generator,
    painted_mm: float = _PAINTED_MM,
) -> SimulatedSpine:
    """Scan a given spine; see :func:`simulate_spine`."""
    first, last = REGIONS[protocol.region][:2]
    offsets = (np.arange(protocol.slices) - (protocol.slices - 1) / 2) * protocol.gap_mm
    fine = 3 if protocol.gap_mm > 2 else 1
    within = ((np.arange(fine) + 0.5) / fine - 0.5) * protocol.gap_mm * protocol.thickness
    looked_at = np.concatenate([at for number, at in spine.points().items() if first <= number <= last])
    middle_mm = float(looked_at[:, 0].min() + looked_at[:, 0].max()) / 2
    painted = paint(spine, rng, tuple((offsets[:, None] + within).ravel()), painted_mm, middle_mm)
    wanted = (painted.numbers >= first) & (painted.numbers <= last)
    middle = painted.points[wanted, 1:]
    centre = (middle.min(axis=0) + middle.max(axis=0)) / 2 + rng.normal(0, 8, 2)
    extent = np.minimum([protocol.height_mm, protocol.width_mm], np.array(painted.shape) * painted_mm)
    corner = np.clip(centre - extent / 2, 0, np.array(painted.shape) * painted_mm - extent)
    image = _slices(painted, corner, extent, fine, protocol.pixel_mm, contrast, rng)
    depth = centre[1] + 75 - (corner[1] + np.arange(image.shape[2])[None] * protocol.pixel_mm)
    image = scanned(image, depth.astype(np.float32), protocol.pixel_mm, look, rng)
    array = np.rint(image / max(float(np.percentile(image, 99.8)), 1e-6) * rng.uniform(200, 2000))
    slices_mm = painted.slices_mm.reshape(-1, fine).mean(axis=1)
    matrix = _matrix(protocol, slices_mm[0], rng)
    volume = Volume(np.clip(array, 0, 32767).astype(np.int16), matrix, "", meta={"modality": "MR"})
    return SimulatedSpine(volume, *_in_view(painted, corner, slices_mm, protocol, volume), contrast.kind)


def _slices(
    painted: PaintedSpine, corner: np.ndarray, extent: np.ndarray, fine: int, pixel_mm: float, contrast: Contrast,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Grey slices (K, rows, columns) of the field of view, each the mean of ``fine`` painted ones."""
    rows, columns = (
        ((start + (np.arange(2 * int(length / pixel_mm)) - 0.5) * pixel_mm / 2) / painted.pixel_mm + 0.5).astype(int)
        for start, length in zip(corner, extent)
    )
    rows, columns = (np.clip(at, 0, size - 1) for at, size in zip((rows, columns), painted.shape))
    table, slices = grey_of_codes(contrast, painted.health, Tissue.NUCLEUS, rng), []
    for number in range(0, len(painted.codes), fine):
        parts = [table[codes[rows][:, columns]] for codes in painted.codes[number : number + fine]]
        mean = np.mean(parts, axis=0)
        grey = (mean[::2, ::2] + mean[1::2, ::2] + mean[::2, 1::2] + mean[1::2, 1::2])[None] / 4
        amount = contrast.texture[painted.codes[number + fine // 2][rows[::2]][:, columns[::2]] >> 8][None]
        slices.append(textured(grey.astype(np.float32), amount, pixel_mm, rng)[0])
    return np.stack(slices)


def _matrix(protocol: Protocol, first_mm: float, rng: np.random.Generator) -> np.ndarray:
    """IJK-to-RAS: slices run right, rows inferior, columns posterior, turned a little."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)
    for axis, angle in enumerate(np.deg2rad(protocol.oblique_deg)):
        one, two = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[[one, two], [one, two]] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        matrix[:3, :3] = turn @ matrix[:3, :3]
    matrix[:3, :3] *= [protocol.pixel_mm, protocol.pixel_mm, protocol.gap_mm]
    matrix[:3, 3] = rng.normal((first_mm, 60, 100), 30)
    return matrix


def _in_view(
    painted: PaintedSpine, corner: np.ndarray, slices_mm: np.ndarray, protocol: Protocol, volume: Volume
) -> tuple[list[int], np.ndarray]:
    """(numbers, RAS mm) of the discs whose centres lie within the volume, from above."""
    k = (painted.points[:, 0] - slices_mm[0]) / protocol.gap_mm
    j, i = ((painted.points[:, 1:] - corner) / protocol.pixel_mm).T
    kji = np.stack([k, j, i], axis=1)
    kept = ((kji >= -0.5) & (kji <= np.array(volume.array.shape) - 0.5)).all(axis=1)
    order = [n for n in np.argsort(j) if kept[n]]
    ijk = np.column_stack([kji[order][:, ::-1], np.ones(len(order))])
    return [int(painted.numbers[n]) for n in order], (ijk @ volume.ijk_to_ras.T)[:, :3]
