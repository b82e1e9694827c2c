"""Painting the column of one sagittal slice: bodies, discs, canal with cord and roots, arches, dens, atlas."""

from __future__ import annotations

import numpy as np

from Training.simulation.spine_anatomy import CANAL_MM, CORD_MM, Disc, Spine, Vertebra, along
from Training.simulation.spine_painter import Sheet, ellipse, rounded, wobbly
from Training.simulation.spine_tissues import Tissue

T = Tissue
#: Region or vertebra -> (length, height at the tip, fall in degrees) of the spinous process; interpolated between.
_SPINOUS = {"C2": (24, 13, 15), "C3": (15, 6, 20), "C6": (24, 7, 20), "C7": (34, 9, 18), "T1": (36, 9, 22),
            "T4": (36, 8, 42), "T7": (36, 8, 52), "T10": (30, 9, 42), "T12": (28, 14, 20), "L1": (31, 19, 12),
            "L3": (33, 22, 8), "L5": (25, 15, 8), "S1": (14, 15, 0), "S3": (9, 12, 0), "S5": (4, 5, 0)}  # fmt: skip
_SHELL_MM = 0.8


def paint_column(sheet: Sheet, spine: Spine, rng: np.random.Generator) -> None:
    """Paint the column over what lies there.

    Args:
        sheet: its ``x_mm`` says the slice.
        rng: wobbles of outlines, and the roots.
    """
    canal = _Canal(spine)
    _paint_spinous(sheet, spine, rng)
    _paint_ligaments(sheet, spine)
    canal.paint(sheet, rng)
    _paint_pillars(sheet, spine, canal)
    for disc in spine.discs:
        paint_disc(sheet, disc, rng)
    for body in spine.vertebrae:
        paint_body(sheet, body, rng)
    _paint_ribs(sheet, spine, rng)
    _paint_dens_and_atlas(sheet, spine, canal, rng)
    _paint_coccyx(sheet, spine, rng)


def _share(offset: float, width: float, power: float = 3.0) -> float:
    """What is left of a depth ``offset`` mm beside the middle of something ``width`` wide; 0 beyond."""
    ratio = abs(2 * offset / width)
    return float((1 - ratio**power) ** (1 / power)) if ratio < 1 else 0.0


def body_outline(body: Vertebra, shrink: float, share: float = 1.0) -> np.ndarray:
    """(n, 2) points (p, z) around a body with a slight waist, ``shrink`` mm within its surface."""
    upper, lower = body.edge(True), body.edge(False)
    depth = body.depth
    pulled = [
        np.clip((forward + depth / 2) * share, shrink, depth * share - shrink) - depth / 2
        for forward in (upper[0], lower[0])
    ]
    waist = 0.045 * depth
    middle = (np.array([-depth / 2 + shrink + 0.5 * waist]), np.array([depth * share - depth / 2 - shrink - waist]))
    forward = np.concatenate([pulled[0], middle[1], pulled[1][::-1], middle[0]])
    up = np.concatenate([upper[1] - shrink, [0.0], (lower[1] + shrink)[::-1], [0.0]])
    return rounded(body.place(forward, up), 1)


def paint_body(sheet: Sheet, body: Vertebra, rng: np.random.Generator) -> None:
    """The body with its shell and whatever marks it bears."""
    share = _share(sheet.x_mm - body.x_mm, body.width)
    if share < 0.25:
        return
    sheet.polygon(wobbly(body_outline(body, 0.0, share), 0.15, rng), T.CORTEX, body.number)
    sheet.polygon(wobbly(body_outline(body, _SHELL_MM, share), 0.15, rng), T.MARROW, body.number)
    if body.region in "TLC" and share > 0.9 and abs(sheet.x_mm - body.x_mm) < 4 and body.region != "C":
        vein = body.place(np.array([-0.5, -0.2, -0.5]) * body.depth, np.array([1.3, 0, -1.3]))
        sheet.polygon(vein, T.VEIN, body.number, over=(T.MARROW, T.CORTEX))
    for kind, *numbers in body.marks:
        _MARKS[kind](sheet, body, numbers)


def _endplate_mark(tissue: Tissue):
    def paint(sheet: Sheet, body: Vertebra, numbers: list[float]) -> None:
        side, reach, start, stop = numbers
        upper = side > 0
        forward, up = body.edge(upper)
        used = (forward >= (start - 0.5) * body.depth) & (forward <= (stop - 0.5) * body.depth)
        if used.sum() < 2:
            return
        inner = up[used] - side * reach * body.height * np.sin(np.linspace(0.35, np.pi - 0.35, used.sum()))
        points = np.concatenate([np.stack([forward[used], up[used]], 1), np.stack([forward[used], inner], 1)[::-1]])
        sheet.polygon(rounded(body.place(*points.T)), tissue, body.number, over=(T.MARROW,))

    return paint


def _round_mark(tissue: Tissue, over: tuple[int, ...] = (T.MARROW,)):
    def paint(sheet: Sheet, body: Vertebra, numbers: list[float]) -> None:
        forward, up, half_forward, half_up, x = numbers
        share = _share(sheet.x_mm - body.x_mm - x * body.width, 1.2 * half_forward * body.depth * 2, 2.0)
        if share:
            half = (half_forward * body.depth * share, half_up * body.height * share)
            centre = body.place(forward * body.depth, up * body.height)
            sheet.polygon(ellipse(centre, half, body.tilt), tissue, body.number, over=over)

    return paint


def _schmorl(sheet: Sheet, body: Vertebra, numbers: list[float]) -> None:
    side, at, half, depth = numbers
    if abs(sheet.x_mm - body.x_mm) > 9:
        return
    forward, up = body.edge(side > 0)
    height = float(np.interp(at * body.depth, forward, up))
    for grow, tissue in ((0.8, T.CORTEX), (0.0, T.ANNULUS)):
        shape = ellipse(body.place(at * body.depth, height), (half * body.depth + grow, depth * body.height + grow))
        sheet.polygon(shape, tissue, body.number, over=(T.MARROW, T.CORTEX))


def _screw(sheet: Sheet, body: Vertebra, numbers: list[float]) -> None:
    offset, length, thick = numbers
    if abs(abs(sheet.x_mm - body.x_mm) - offset) > 6:
        return
    forward = np.array([-0.5 * body.depth - 28, body.depth * (length - 0.5)])
    points = body.place(np.concatenate([forward, forward[::-1]]), np.repeat([thick, -thick], 2) + 0.15 * body.height)
    sheet.polygon(points, T.METAL, 0)
    head = ellipse(body.place(-0.5 * body.depth - 30, 0.15 * body.height), (1.8 * thick, 2.2 * thick))
    sheet.polygon(head, T.METAL, 0)


_MARKS = {
    "schmorl": _schmorl, "screw": _screw, "oedema": _endplate_mark(T.OEDEMA), "fatty": _endplate_mark(T.FATTY_MARROW),
    "sclerosis": _endplate_mark(T.SCLEROSIS), "haemangioma": _round_mark(T.HAEMANGIOMA),
    "spot": _round_mark(T.SCLEROSIS), "fat_island": _round_mark(T.FATTY_MARROW), "cement": _round_mark(T.VOID),
    "all_oedema": _round_mark(T.OEDEMA), "cage": _round_mark(T.METAL, ()),
}  # fmt: skip


def paint_disc(sheet: Sheet, disc: Disc, rng: np.random.Generator) -> None:
    """Annulus, and the nucleus in the middle of the disc."""
    offset = sheet.x_mm - disc.x_mm
    width = (disc.upper.width + disc.lower.width) / 2
    share = _share(offset, width)
    if share < 0.25:
        return
    outline = disc.outline()
    back, axis = _axis(outline, disc)
    along_axis = (outline - back) @ axis
    outline = outline - np.outer(along_axis * (1 - share) * (along_axis > 0), axis)
    sheet.polygon(rounded(wobbly(outline, 0.12, rng), 1), T.ANNULUS, disc.number)
    core = _share(offset, 0.75 * width, 2.0)
    if core > 0.2 and disc.height > 2.0:
        centre = disc.centre
        inner = centre - 0.06 * disc.upper.depth * axis + (outline - centre) * (0.66 * core)
        upward = np.array([-axis[1], axis[0]])
        off = (inner - centre) @ upward
        inner += np.outer(off * 0.22, upward)  # wider than tall all the same
        sheet.polygon(rounded(inner, 2), T.NUCLEUS, disc.number, over=(T.ANNULUS,))
        if disc.health > 0.5 and disc.height > 6 and rng.random() < 0.5:  # the cleft of grown-up discs
            line = centre + np.outer(np.array([-0.28, 0.2]) * disc.upper.depth, axis)
            sheet.tube(line + upward * 0.5, line - upward * 0.5, T.ANNULUS, disc.number)
    if disc.void:
        sheet.polygon(ellipse(disc.centre, (0.25 * disc.upper.depth, 0.8), disc.upper.tilt), T.VOID, disc.number)


def _axis(outline: np.ndarray, disc: Disc) -> tuple[np.ndarray, np.ndarray]:
    """(back point, unit vector to the front) of a disc."""
    back, front = outline[-1], outline[9]
    along_axis = front - back
    return back, along_axis / np.linalg.norm(along_axis)


class _Canal:
    """The canal as a line of stations from S5 up to the foramen magnum, with its front and back and the cord's."""

    def __init__(self, spine: Spine):
        depth, width = (along(spine, CANAL_MM, column) * spine.canal_scale for column in (0, 1))
        cord, cord_width = (along(spine, CORD_MM, column) * spine.cord_scale for column in (0, 1))
        names = [body.name for body in spine.vertebrae]
        conus = names.index(spine.conus)
        points, backwards, sizes, index = [], [], [], []
        for number, body in enumerate(spine.vertebrae):
            for up in (-0.5, 0.0, 0.5):
                gap = (1.6 if up == 0.0 else 0.6) + (3.0 if body.name in ("L5", "S1", "S2") else 0.0)
                points.append(body.place(-body.depth / 2 - gap, up * body.height))
                backwards.append(body.place(-1.0, 0.0) - body.centre)
                taper = float(np.clip((number + up - conus + 0.3) / 0.7, 0, 1))
                sizes.append((depth[number], width[number], min(cord[number], 0.72 * depth[number]) * taper,
                              cord_width[number]))  # fmt: skip
                index.append(number)
        axis = spine.vertebrae[-1]
        for up, wider in ((0.5 * axis.height + 12, 1.08), (0.5 * axis.height + 26, 1.15)):  # behind dens and atlas
            points.append(axis.place(-axis.depth / 2 - 2.0 + 0.06 * (up - 10), up))
            backwards.append(axis.place(-1.0, 0.0) - axis.centre)
            sizes.append((sizes[-1][0] * wider, sizes[-1][1], sizes[-1][2] * 1.06, sizes[-1][3]))
            index.append(index[-1])
        self.spine = spine
        self.x = np.array([spine.vertebrae[number].x_mm for number in index])
        self.front, self.backward = _smooth(np.array(points)), np.array(backwards)
        self.depth, self.width, self.cord, self.cord_width = _smooth(np.array(sizes)).T
        self.stenosis = np.ones(len(self.front))
        for disc in spine.discs:
            if disc.bulge > 1.5:
                self.stenosis[3 * spine.vertebrae.index(disc.lower) + 2] -= min(0.45, 0.08 * disc.bulge)

    def line(self, share: float) -> np.ndarray:
        """(n, 2) points at a share of the depth from the front (0) to the back (1)."""
        return self.front + self.backward * (share * self.depth)[:, None]

    def paint(self, sheet: Sheet, rng: np.random.Generator) -> None:
        """Fat, dura, fluid, cord and roots."""
        open_share = _shares(sheet.x_mm - self.x, self.width, 2.5)
        dural = _shares(sheet.x_mm - self.x, self.width * 0.86, 2.2)
        cord = _shares(sheet.x_mm - self.x, np.maximum(self.cord_width, 1), 2.0)
        low = 3 * next(number for number, body in enumerate(self.spine.vertebrae) if body.name == "S2")
        middle = 0.5
        self._band(sheet, middle, 0.5 * open_share, T.EPIDURAL_FAT)
        half = 0.44 * dural * self.stenosis * (np.arange(len(self.x)) >= low)
        self._band(sheet, middle, half + 0.035 * (half > 0), T.DURA)
        self._band(sheet, middle, half, T.CSF)
        offset = rng.normal(0, 0.05)
        self._roots(sheet, half, rng)
        with np.errstate(invalid="ignore", divide="ignore"):
            self._band(sheet, middle + offset, 0.5 * cord * np.where(half > 0, self.cord / self.depth, 0), T.CORD)

    def _band(self, sheet: Sheet, middle: float, half: np.ndarray, tissue: Tissue) -> None:
        """A tube around a share of the depth, wherever its half width (a share, too) is above 0."""
        used = np.flatnonzero(half > 0.01)
        for run in np.split(used, np.flatnonzero(np.diff(used) > 1) + 1):
            if len(run) > 1:
                depth = self.depth[run, None] * self.backward[run]
                front = self.front[run] + depth * (middle - half[run, None])
                sheet.tube(front, front + depth * 2 * half[run, None], tissue)

    def _roots(self, sheet: Sheet, half: np.ndarray, rng: np.random.Generator) -> None:
        """Strands of the cauda equina, mostly in its back half."""
        conus = 3 * next(n for n, body in enumerate(self.spine.vertebrae) if body.name == self.spine.conus)
        used = np.flatnonzero(half[: conus + 2] > 0.05)
        if len(used) < 3:
            return
        for _ in range(int(rng.integers(2, 7))):
            start, stop = rng.uniform(0.35, 0.75), rng.uniform(0.3, 0.85)
            share = np.linspace(stop, start, len(used)) + np.cumsum(rng.normal(0, 0.015, len(used)))
            share = np.clip(share, 0.5 - 0.85 * half[used], 0.5 + 0.85 * half[used])
            line = self.front[used] + self.backward[used] * (share * self.depth[used])[:, None]
            thick = self.backward[used] * rng.uniform(0.3, 0.9)
            sheet.tube(line - thick / 2, line + thick / 2, T.ROOTS)


def _shares(offsets: np.ndarray, widths: np.ndarray, power: float) -> np.ndarray:
    return np.array([_share(offset, width, power) for offset, width in zip(offsets, widths)])


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean of three along the first axis; the ends stay."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _paint_spinous(sheet: Sheet, spine: Spine, rng: np.random.Generator) -> None:
    """Spinous processes in the middle, laminae beside it."""
    lengths, tips, falls = (along(spine, _SPINOUS, column) for column in range(3))
    canal = along(spine, CANAL_MM, 0) * spine.canal_scale
    for number, body in enumerate(spine.vertebrae):
        offset = abs(sheet.x_mm - body.x_mm)
        back = -body.depth / 2 - 1.5 - canal[number]
        if body.region == "S":
            back -= 3.0
        fall = np.deg2rad(falls[number] / spine.size + rng.normal(0, 4))
        rise = min(0.42 * body.height, 9.0)
        low = 0.15 * body.height
        if offset < 3.5:
            length, tip = lengths[number] * rng.uniform(0.85, 1.1), tips[number] * rng.uniform(0.85, 1.1)
        elif offset < 12:
            length, tip = 7.0 * spine.size, 0.75 * body.height
        else:
            continue
        end = np.array([back - length * np.cos(fall), -low - length * np.sin(fall)])
        around_tip = end + np.array([(0, -tip / 2), (-2.5, 0), (0, tip / 2)])
        shape = np.concatenate([[(back, rise - low), (back - 2, -rise - low)], around_tip])
        shape = rounded(wobbly(shape, 0.4, rng), 2)
        inner = shape.mean(axis=0) + (shape - shape.mean(axis=0)) * np.array([0.9, 0.72])
        sheet.polygon(body.place(*shape.T), T.CORTEX, body.number)
        sheet.polygon(body.place(*inner.T), T.POSTERIOR_MARROW, body.number)


def _paint_ligaments(sheet: Sheet, spine: Spine) -> None:
    """Yellow ligaments at the back of the canal between the laminae, and the line in front of the bodies."""
    canal = along(spine, CANAL_MM, 0) * spine.canal_scale
    for number, body in enumerate(spine.vertebrae):
        if body.region == "S" or abs(sheet.x_mm - body.x_mm) > 10:
            continue
        back = -body.depth / 2 - 1.0 - canal[number]
        low = -0.5 * body.height
        forward, up = back - np.array([0, 3.0, 3.5, 1.0]), low + np.array([4, 2, -6, -7])
        sheet.polygon(body.place(forward, up), T.LIGAMENT)


def _paint_pillars(sheet: Sheet, spine: Spine, canal: _Canal) -> None:
    """Pedicles, joints and foramina beside the canal."""
    for number, body in enumerate(spine.vertebrae):
        offset = abs(sheet.x_mm - body.x_mm)
        half = canal.width[3 * number] / 2
        if body.region == "S" or not half * 0.85 < offset < half + 13:
            continue
        depth = canal.depth[3 * number]
        back = -body.depth / 2
        sheet.polygon(rounded(body.place(np.array([back + 2, back - depth - 6, back - depth - 6, back + 2]),
                      np.array([0.5, 0.5, -1.0, -1.0]) * body.height)), T.VISCERAL_FAT)  # fmt: skip
        sheet.polygon(ellipse(body.place(back - 0.35 * depth, -0.32 * body.height), (2.2, 2.6)), T.ROOTS)
        for grow, tissue in ((0.0, T.CORTEX), (1.0, T.POSTERIOR_MARROW)):
            joint = body.place(back - depth * 0.75 + np.array([3.0 - grow, -8.0 + grow, -9.0 + grow, 1.0 - grow]),
                               np.array([0.62, 0.5, -0.62, -0.5]) * (body.height - grow))  # fmt: skip
            sheet.polygon(rounded(joint, 1), tissue, body.number)
            if offset < half + 8:
                high, low = 0.42 * body.height - grow, 0.02 * body.height + grow
                forward = back + np.array([2, -depth, -depth, 2])
                sheet.polygon(body.place(forward, np.array([high, high, low, low])), tissue, body.number)


def _paint_ribs(sheet: Sheet, spine: Spine, rng: np.random.Generator) -> None:
    """Heads and necks of the ribs beside the thoracic bodies, at the upper edge of each and further back outwards."""
    for body in spine.vertebrae:
        beside = abs(sheet.x_mm - body.x_mm) - 0.42 * body.width
        if body.region == "T" and 0 < beside < 20:
            middle = body.place(-0.42 * body.depth - 0.9 * beside, 0.45 * body.height)
            _bone(sheet, ellipse(middle, (5.5 * spine.size, 4.5 * spine.size), body.tilt), 0, rng)


def _paint_dens_and_atlas(sheet: Sheet, spine: Spine, canal: _Canal, rng: np.random.Generator) -> None:
    """The dens on C2, the arches of C1 before and behind, the lateral mass beside."""
    axis, size = spine.vertebrae[-1], spine.size
    offset = abs(sheet.x_mm - axis.x_mm)
    base, tall = 0.5 * axis.height, 17 * size
    if offset < 5.5 * size:
        for grow, tissue in ((0.0, T.CORTEX), (_SHELL_MM, T.MARROW)):
            half = 5.5 * size * _share(offset, 11 * size, 2.0) - grow
            forward = half * np.array([-1, -1, -0.5, 0.5, 1, 1]) + np.array([-1, 0, 0, 0, 0, 1])
            high, middle, low = base + tall - grow, base + 0.6 * tall, base - 3
            sheet.polygon(rounded(axis.place(forward, [low, middle, high, high, middle, low]), 1), tissue, axis.number)
        arch = axis.place(5.5 * size + 4.2, base + 0.62 * tall)
        _bone(sheet, ellipse(arch, (3.2 * size, 5.2 * size), axis.tilt), 0, rng)
    depth = canal.depth[-1]
    behind = axis.place(-axis.depth / 2 - 2 - depth - 5.0, base + 0.45 * tall)
    if offset < 16:
        _bone(sheet, ellipse(behind, (4.2 * size, 3.8 * size)), 0, rng)
    elif offset < 26:
        _bone(sheet, ellipse(axis.place(-4.0, base + 0.5 * tall), (9 * size, 7 * size)), 0, rng)


def _bone(sheet: Sheet, outline: np.ndarray, number: int, rng: np.random.Generator) -> None:
    """A small bone with its shell."""
    middle = outline.mean(axis=0)
    sheet.polygon(wobbly(outline, 0.25, rng), T.CORTEX, number)
    sheet.polygon(middle + (outline - middle) * 0.72, T.POSTERIOR_MARROW, number)


def _paint_coccyx(sheet: Sheet, spine: Spine, rng: np.random.Generator) -> None:
    """Three or four small bones below the sacrum, bent forward."""
    last = spine.vertebrae[0]
    if abs(sheet.x_mm - last.x_mm) > 8:
        return
    at, tilt = last.place(0.0, -last.height / 2 - 5), last.tilt
    for _ in range(int(rng.integers(2, 5))):
        tilt -= rng.uniform(0.1, 0.4)
        _bone(sheet, ellipse(at, (3.6 * spine.size, 4.6 * spine.size), tilt), 0, rng)
        at = at - 10.5 * spine.size * np.array([np.sin(tilt), np.cos(tilt)])
