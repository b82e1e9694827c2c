"""Bleeds of five kinds, drawn where they occur, as implicit shapes on a fine grid.

Each shape is a signed distance-like function in mm turned into an occupancy 0..1 with a soft edge, so that thick
slices average it to true partial volume.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from Training.simulation.fields import blur_mm, bounding_box, coordinates_mm, random_rotation, smooth_field

if TYPE_CHECKING:
    from Training.simulation.lesion_shapes import LesionShapes

#: Truth values by kind.
KINDS = {"intraparenchymal": 1, "intraventricular": 2, "subdural": 3, "epidural": 4, "subarachnoid": 5}
#: How often each kind is drawn; extra-axial and small parenchymal bleeds are the ones that are missed.
KIND_SHARES = {
    "intraparenchymal": 0.33,
    "intraventricular": 0.17,
    "subdural": 0.2,
    "epidural": 0.18,
    "subarachnoid": 0.12,
}

#: Share of bleeds that are faint: blood thinned by CSF, old, or in an anaemic patient.
FAINT_SHARE = 0.25
#: Share of parenchymal bleeds that take the shape of a real lesion, where a library of shapes is given.
TRACED_SHARE = 0.35


@dataclass(frozen=True)
class Anatomy:
    """What a bleed has to know of the head it appears in; all arrays (k, j, i), axial, rows toward posterior.

    Attributes:
        spacing_mm: (slice, row, column) spacing of the fine grid.
        inside: bool, intracranial space.
        depth_mm: distance to the nearest point outside it.
        ventricles: bool.
        csf: bool, sulci and cisterns.
        midline_mm: column position of the mid-plane in mm, per slice (K,).
    """

    spacing_mm: tuple[float, float, float]
    inside: np.ndarray
    depth_mm: np.ndarray
    ventricles: np.ndarray
    csf: np.ndarray
    midline_mm: np.ndarray

    def __post_init__(self) -> None:
        area = self.inside.sum(axis=(1, 2))
        head = self.inside & (area > 0.3 * area.max())[:, None, None]
        object.__setattr__(self, "head", head)

    head: np.ndarray = field(init=False, repr=False, compare=False)  # inside, without the spinal canal

    def wall_depth_mm(self, box: tuple[slice, slice, slice]) -> np.ndarray:
        """Depth under the convexity inside a box: the skull base counts as far, the vault as near."""
        in_plane = np.zeros((box[0].stop - box[0].start, *self.inside.shape[1:]))
        for depth, part in zip(in_plane, self.inside[box[0]]):
            around = bounding_box(part, margin=1)
            depth[around] = ndimage.distance_transform_edt(part[around], sampling=self.spacing_mm[1:])
        return np.maximum(self.depth_mm[box], 0.6 * in_plane[(slice(None), *box[1:])]).astype(np.float32)


@dataclass(frozen=True)
class Bleed:
    """One bleed on the fine grid, in its own box.

    Attributes:
        kind: key of :data:`KINDS`.
        box: slices of the fine grid that hold it.
        occupancy: float32 0..1 in the box.
        hu: float32 in the box, density of the blood with its texture.
        oedema: float32 0..1 in the box (empty rim: zeros).
    """

    kind: str
    box: tuple[slice, slice, slice]
    occupancy: np.ndarray
    hu: np.ndarray
    oedema: np.ndarray


def draw_bleed(
    kind: str, anatomy: Anatomy, rng: np.random.Generator, shapes: LesionShapes | None = None
) -> Bleed | None:
    """One random bleed of that kind, or None where the anatomy has no place for it (no ventricle in view).

    With ``shapes``, a share of the parenchymal bleeds (:data:`TRACED_SHARE`) takes the shape of a real lesion.
    """
    traced = kind == "intraparenchymal" and shapes is not None and rng.random() < TRACED_SHARE
    drawn = _traced(anatomy, rng, shapes) if traced else _SHAPES[kind](anatomy, rng)
    if drawn is None or drawn[1].max() < 0.5:
        return None
    box, occupancy, oedema_share = drawn
    occupancy = occupancy.astype(np.float32)
    mean = float(np.clip(rng.normal(58 if traced else 61, 8), 44, 84))
    if kind == "subarachnoid":
        mean = float(rng.uniform(42, 66))
    elif rng.random() < FAINT_SHARE:
        mean = float(rng.uniform(42, 54))
    texture = smooth_field(occupancy.shape, anatomy.spacing_mm, rng.uniform(3, 9), rng) * rng.uniform(1, 7)
    oedema = np.zeros_like(occupancy)
    if oedema_share:
        oedema = (
            np.clip(2.2 * blur_mm(occupancy, rng.uniform(2, 5), anatomy.spacing_mm) - occupancy, 0, 1) * oedema_share
        )
    return Bleed(kind, box, occupancy, (mean + texture).astype(np.float32), oedema)


def random_kind(rng: np.random.Generator) -> str:
    """A kind drawn by :data:`KIND_SHARES`."""
    return str(rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values())))


# -- helpers ------------------------------------------------------------------------------------------------------


def _pick(where: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A random index (3,) among the true voxels."""
    flat = np.flatnonzero(where)
    return None if flat.size == 0 else np.array(np.unravel_index(rng.choice(flat), where.shape))


def _box(centre: np.ndarray, radius_mm: float, anatomy: Anatomy) -> tuple[slice, slice, slice]:
    """Box of the grid within ``radius_mm`` of a voxel."""
    return tuple(
        slice(max(0, int(c - radius_mm / s) - 1), min(n, int(c + radius_mm / s) + 2))
        for c, s, n in zip(centre, anatomy.spacing_mm, anatomy.inside.shape)
    )


def _offsets(box: tuple[slice, slice, slice], centre: np.ndarray, anatomy: Anatomy) -> list[np.ndarray]:
    """Open arrays of mm offsets from ``centre`` inside a box."""
    shape = tuple(b.stop - b.start for b in box)
    return [
        axis + (b.start - c) * s
        for axis, b, c, s in zip(coordinates_mm(shape, anatomy.spacing_mm), box, centre, anatomy.spacing_mm)
    ]


def _soft(distance_mm: np.ndarray, edge_mm: float) -> np.ndarray:
    """Occupancy of a signed distance (positive inside) with an edge of that width."""
    return np.clip(0.5 + distance_mm / edge_mm, 0, 1)


def _radius_of(volume_ml: float) -> float:
    return float((volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3))


# -- shapes: each returns (box, occupancy, share of oedema) --------------------------------------------------------


def _blob(anatomy: Anatomy, centre: np.ndarray, radius_mm: float, rng: np.random.Generator, rough: float = 0.3):
    """An irregular ellipsoid: random axes and orientation, two octaves of surface noise."""
    axes = radius_mm * np.exp(rng.normal(0, 0.25, 3)).astype(np.float32)
    box = _box(centre, 1.9 * float(axes.max()), anatomy)
    z, y, x = _offsets(box, centre, anatomy)
    rotation = random_rotation(rng) / axes[:, None]
    squared = sum((row[0] * z + row[1] * y + row[2] * x) ** 2 for row in rotation)
    shape = squared.shape
    surface = 1 - np.sqrt(squared)
    surface += rough * smooth_field(shape, anatomy.spacing_mm, max(1.2 * radius_mm, 3.0), rng)
    surface += 0.5 * rough * smooth_field(shape, anatomy.spacing_mm, max(0.45 * radius_mm, 2.0), rng)
    return box, surface * float(axes.min())


def _intraparenchymal(anatomy: Anatomy, rng: np.random.Generator):
    """Deep or lobar haematoma, or a cluster of contusions near the surface."""
    tissue = anatomy.head & ~anatomy.ventricles
    site = rng.choice(["deep", "lobar", "contusion", "anywhere"], p=[0.25, 0.3, 0.3, 0.15])
    low, high = {"deep": (25, 90), "lobar": (8, 30), "contusion": (3, 12), "anywhere": (3, 90)}[site]
    centre = _pick(tissue & (anatomy.depth_mm > low) & (anatomy.depth_mm < high), rng)
    if centre is None:
        return None
    if site == "contusion":
        return _contusions(anatomy, centre, tissue, rng)
    radius = _radius_of(float(np.clip(np.exp(rng.normal(np.log(4.0), 1.5)), 0.15, 80)))
    box, distance = _blob(anatomy, centre, radius, rng, rough=rng.uniform(0.1, 0.4))
    occupancy = _soft(distance, rng.uniform(1.0, 3.0))
    spared = anatomy.ventricles[box] if rng.random() < 0.7 else np.zeros_like(anatomy.ventricles[box])
    occupancy *= _soft(anatomy.depth_mm[box] - 0.7, 1.0) * ~spared
    return box, occupancy, rng.uniform(0.3, 1.0) if rng.random() < 0.8 else 0.0


def _traced(anatomy: Anatomy, rng: np.random.Generator, shapes: LesionShapes):
    """A parenchymal bleed in the shape of a real lesion, anywhere in the brain."""
    centre = _pick(anatomy.head & (anatomy.depth_mm > 4), rng)
    if centre is None:
        return None
    mask, scale = shapes.pick(rng), rng.uniform(0.7, 1.25)
    box = _box(centre, 0.5 * scale * float(np.linalg.norm(mask.shape)), anatomy)
    occupancy = shapes.draw(_offsets(box, centre, anatomy), scale, mask, rng)
    spared = anatomy.ventricles[box] if rng.random() < 0.7 else np.zeros_like(anatomy.ventricles[box])
    occupancy = occupancy * _soft(anatomy.depth_mm[box] - 0.7, 1.0) * ~spared
    return box, occupancy, rng.uniform(0.3, 1.0) if rng.random() < 0.8 else 0.0


def _contusions(anatomy: Anatomy, centre: np.ndarray, tissue: np.ndarray, rng: np.random.Generator):
    """Two to seven small patches in one region, some of them only a few mm across."""
    reach = rng.uniform(6, 25)
    box = _box(centre, reach + 12, anatomy)
    occupancy = np.zeros([b.stop - b.start for b in box], np.float32)
    for _ in range(rng.integers(1, 7)):
        at = centre + rng.normal(0, reach / 2, 3) / anatomy.spacing_mm
        at = np.clip(np.rint(at), 0, np.array(tissue.shape) - 1).astype(int)
        if not tissue[tuple(at)]:
            continue
        own, distance = _blob(anatomy, at, float(np.exp(rng.normal(np.log(3.5), 0.5))), rng, rough=0.4)
        part = _soft(distance, rng.uniform(1.0, 3.0)) * rng.uniform(0.7, 1.0)
        lower = [max(o.start, b.start) for o, b in zip(own, box)]
        upper = [min(o.stop, b.stop) for o, b in zip(own, box)]
        if any(high <= low for low, high in zip(lower, upper)):
            continue
        into = tuple(slice(low - b.start, high - b.start) for low, high, b in zip(lower, upper, box))
        take = tuple(slice(low - o.start, high - o.start) for low, high, o in zip(lower, upper, own))
        occupancy[into] = np.maximum(occupancy[into], part[take])
    occupancy *= anatomy.inside[box]
    return box, occupancy, rng.uniform(0.3, 1.0)


def _surface_point(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray | None:
    """A voxel just under the inner table."""
    return _pick(anatomy.head & (anatomy.depth_mm < 2.0), rng)


def _extra_axial_frame(anatomy: Anatomy, radius_mm: float, rng: np.random.Generator):
    """Box around a surface point, depth under the skull, and squared distance along it, in mm."""
    point = _surface_point(anatomy, rng)
    if point is None:
        return None
    box = _box(point, radius_mm * 1.1, anatomy)
    z, y, x = _offsets(box, point, anatomy)
    depth = anatomy.wall_depth_mm(box)
    along = np.maximum(z**2 + y**2 + x**2 - depth**2, 0)
    return box, depth, along, anatomy.inside[box]


def _epidural(anatomy: Anatomy, rng: np.random.Generator):
    """A biconvex lens against the inner table."""
    thick = float(np.clip(np.exp(rng.normal(np.log(8.0), 0.6)), 2.5, 30))
    radius = float(np.clip(thick * rng.uniform(1.2, 3.0), 9, 60))
    frame = _extra_axial_frame(anatomy, radius, rng)
    if frame is None:
        return None
    box, depth, along, inside = frame
    profile = 1 - along / radius**2
    profile += 0.15 * smooth_field(depth.shape, anatomy.spacing_mm, max(0.6 * radius, 6), rng)
    occupancy = _soft(thick * profile - depth, rng.uniform(0.8, 2.0)) * inside
    return box, occupancy, 0.0


def _subdural(anatomy: Anatomy, rng: np.random.Generator):
    """A crescent over one hemisphere, or a sheet along the falx."""
    if rng.random() < 0.25:
        return _parafalcine(anatomy, rng)
    thick = float(np.clip(np.exp(rng.normal(np.log(5.0), 0.5)), 1.8, 18))
    radius = rng.uniform(28, 85)
    frame = _extra_axial_frame(anatomy, radius, rng)
    if frame is None:
        return None
    box, depth, along, inside = frame
    profile = np.clip(1 - along / radius**2, 0, 1) ** 0.5
    profile = profile * (1 + 0.3 * smooth_field(depth.shape, anatomy.spacing_mm, 22.0, rng))
    columns = coordinates_mm(depth.shape, anatomy.spacing_mm)[2] + box[2].start * anatomy.spacing_mm[2]
    side = columns - anatomy.midline_mm[box[0], None, None]
    own = np.sign((side * (along < (0.3 * radius) ** 2)).mean()) or 1.0
    occupancy = _soft(thick * profile - depth, rng.uniform(0.8, 2.0)) * inside * _soft(own * side - 1.0, 2.0)
    return box, occupancy, 0.0


def _parafalcine(anatomy: Anatomy, rng: np.random.Generator):
    """Blood along one side of the falx, over a limited length."""
    columns = coordinates_mm(anatomy.inside.shape, anatomy.spacing_mm)[2]
    near = np.abs(columns - anatomy.midline_mm[:, None, None]) < 2
    rows = anatomy.head & near & (anatomy.depth_mm > 3) & (anatomy.depth_mm < 28)
    used = np.flatnonzero(anatomy.head.any(axis=(1, 2)))
    rows[: used[0] + int(0.4 * len(used))] = False  # the falx ends above the skull base
    centre = _pick(rows, rng)
    if centre is None:
        return None
    radius = rng.uniform(12, 40)
    box = _box(centre, radius, anatomy)
    z, y, _ = _offsets(box, centre, anatomy)
    shape = tuple(b.stop - b.start for b in box)
    side = (columns[..., box[2]] - anatomy.midline_mm[box[0], None, None]) * rng.choice([-1, 1])
    thick = rng.uniform(1.8, 6) * np.clip(1 - (z**2 + y**2) / radius**2, 0, 1) ** 0.5
    thick = thick * (1 + 0.25 * smooth_field(shape, anatomy.spacing_mm, 12.0, rng))
    depth = anatomy.wall_depth_mm(box)  # the falx does not reach the deep mid-brain
    occupancy = _soft(np.minimum(thick - side, side + 1.0), 1.2) * anatomy.inside[box] * _soft(23 - depth, 4.0)
    return box, occupancy, 0.0


def _intraventricular(anatomy: Anatomy, rng: np.random.Generator):
    """A cast of part of the ventricles, or a layer in their dependent (posterior) part."""
    labels, count = ndimage.label(anatomy.ventricles)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())[1:] * np.prod(anatomy.spacing_mm) / 1000
    good = np.flatnonzero(sizes > 0.3) + 1
    if good.size == 0:
        return None
    chosen = labels == rng.choice(good)
    box = ndimage.find_objects(chosen.astype(np.uint8))[0]
    box = tuple(slice(max(0, b.start - 3), min(n, b.stop + 3)) for b, n in zip(box, chosen.shape))
    cast = blur_mm(chosen[box].astype(np.float32), 0.8, anatomy.spacing_mm)
    occupancy = np.clip(cast * rng.uniform(1.0, 1.6), 0, 1)
    rows = coordinates_mm(occupancy.shape, anatomy.spacing_mm)[1]
    if rng.random() < 0.65:  # layering: a nearly level fluid line, patient on the back
        level = np.quantile(np.nonzero(chosen[box])[1], rng.uniform(0.35, 0.97)) * anatomy.spacing_mm[1]
        occupancy = occupancy * _soft(rows - level, rng.uniform(1, 4))
    else:
        field = smooth_field(occupancy.shape, anatomy.spacing_mm, rng.uniform(8, 25), rng)
        occupancy = occupancy * _soft(4 * (field - rng.uniform(-1.5, 0.8)), 3.0)
    return box, occupancy, 0.0


def _subarachnoid(anatomy: Anatomy, rng: np.random.Generator):
    """Blood in sulci and cisterns near one place: CSF where it is seen, thin curved sheets elsewhere."""
    centre = _pick(anatomy.head & (anatomy.depth_mm > 2) & (anatomy.depth_mm < 25), rng)
    if centre is None:
        return None
    radius = rng.uniform(7, 30)
    box = _box(centre, radius, anatomy)
    z, y, x = _offsets(box, centre, anatomy)
    ball = _soft(radius - np.sqrt(z**2 + y**2 + x**2), 8.0)
    space = blur_mm((anatomy.csf & ~anatomy.ventricles)[box].astype(np.float32), 0.7, anatomy.spacing_mm)
    sheet = np.abs(smooth_field(ball.shape, anatomy.spacing_mm, rng.uniform(9, 16), rng))
    sheets = _soft(rng.uniform(0.06, 0.16) - sheet, 0.12)
    occupancy = np.maximum(np.clip(1.3 * space, 0, 1), sheets) * ball * rng.uniform(0.75, 1.0)
    return box, occupancy * _soft(anatomy.depth_mm[box] - 0.7, 1.0), 0.0


_SHAPES = {
    "intraparenchymal": _intraparenchymal,
    "intraventricular": _intraventricular,
    "subdural": _subdural,
    "epidural": _epidural,
    "subarachnoid": _subarachnoid,
}
