"""Painted spines: stacks of sagittal label maps with their exact disc centres, kept as files and read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from NeuraxisLib.atomic import atomic_write
from Training.simulation.spine_anatomy import Spine, draw_spine
from Training.simulation.spine_body import draw_habitus, paint_surroundings
from Training.simulation.spine_column import paint_column
from Training.simulation.spine_painter import Sheet
from Training.simulation.spine_pathology import add_pathology

#: Side of a painted pixel: half of the network's.
PIXEL_MM = 0.625
#: Sides of the middle that are painted: both where they matter most, one where left and right are alike.
OFFSETS_MM = tuple(range(-12, 29, 4))
_ABOVE_MM, _BELOW_MM, _FRONT_MM, _BEHIND_MM = 95.0, 45.0, 150.0, 105.0


@dataclass(frozen=True, eq=False)
class PaintedSpine:
    """A spine as label maps.

    Attributes:
        codes: (K, rows, columns) uint16, 256 x tissue + instance; rows run inferior, columns posterior.
        slices_mm: (K,) x of the slices.
        points: (n, 3) (x, row mm, column mm) of disc centres, from the centre of the first pixel.
        numbers: (n,) of the discs as in :mod:`SpineDiscLabelLib.discs`.
        health: (256,) by instance. straight: whether it is made like a template.
        pixel_mm: side of a pixel.
    """

    codes: np.ndarray
    slices_mm: np.ndarray
    points: np.ndarray
    numbers: np.ndarray
    health: np.ndarray
    straight: bool
    pixel_mm: float = PIXEL_MM

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the slices."""
        return self.codes.shape[1:]

    def save(self, path: Path) -> None:
        """Write to an ``.npz``."""
        with atomic_write(path) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **self.__dict__)

    @classmethod
    def load(cls, path: Path) -> PaintedSpine:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            fields = {name: file[name] for name in file.files}
        return cls(**{**fields, "straight": bool(fields["straight"]), "pixel_mm": float(fields["pixel_mm"])})


def paint_spine(
    rng: np.random.Generator,
    straight: bool = False,
    offsets_mm: tuple[float, ...] = OFFSETS_MM,
    pixel_mm: float = PIXEL_MM,
) -> PaintedSpine:
    """A random spine, painted.

    Args:
        straight: as averaged templates are.
        offsets_mm: x of the slices, from the middle of the spine.
        pixel_mm: side of a pixel.
    """
    spine = draw_spine(rng, straight)
    if not straight:
        add_pathology(spine, rng)
    return paint(spine, rng, offsets_mm, pixel_mm)


def paint(
    spine: Spine,
    rng: np.random.Generator,
    offsets_mm: tuple[float, ...],
    pixel_mm: float,
    middle_mm: float | None = None,
) -> PaintedSpine:
    """Slices of a given spine and a random person around it, ``offsets_mm`` from ``middle_mm`` (else the median x)."""
    habitus = draw_habitus(spine, rng)
    centres = np.array([body.centre for body in spine.vertebrae])
    middle = float(np.median([body.x_mm for body in spine.vertebrae])) if middle_mm is None else middle_mm
    top, front = centres[:, 1].max() + _ABOVE_MM, centres[:, 0].max() + _FRONT_MM
    extent = top - centres[:, 1].min() + _BELOW_MM, front - centres[:, 0].min() + _BEHIND_MM
    shape = tuple(int(np.ceil(length / pixel_mm)) for length in extent)
    slices_mm = middle + np.asarray(offsets_mm, float)
    seed = int(rng.integers(2**31))
    sheets = []
    for x_mm in slices_mm:
        sheet = Sheet.blank(shape, top, front, pixel_mm, float(x_mm))
        paint_surroundings(sheet, spine, habitus)
        paint_column(sheet, spine, np.random.default_rng(seed))  # the same roots and outlines in all slices
        sheets.append(sheet)
    placed = [(number, point) for number, points in spine.points().items() for point in points]
    points = np.array([(x, top - z, front - p) for _, (x, p, z) in placed])
    health = np.ones(256, np.float32)
    for disc in spine.discs:
        health[disc.number] = disc.health
    return PaintedSpine(
        np.stack([sheet.codes for sheet in sheets]),
        slices_mm,
        points,
        np.array([number for number, _ in placed]),
        health,
        spine.straight,
        pixel_mm,
    )
