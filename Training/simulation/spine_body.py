"""Painting what lies around the column in one sagittal slice: skin, fat, muscle, neck, chest, belly, pelvis, head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from Training.simulation.fields import smooth_field
from Training.simulation.spine_anatomy import Spine
from Training.simulation.spine_painter import Sheet, ellipse, rounded, wobbly
from Training.simulation.spine_tissues import Tissue

T = Tissue
#: Vertebra -> mm from the front of its body to the skin in front, of a slim adult.
_FRONT_MM = {"C2": 75, "C4": 52, "C6": 48, "C7": 50, "T1": 55, "T3": 75, "T6": 115, "T9": 135, "T12": 125, "L2": 90,
             "L4": 75, "S1": 110, "S3": 150, "S5": 150}  # fmt: skip


@dataclass(frozen=True)
class Habitus:
    """The person around a spine.

    Attributes:
        girth: mm added in front of the belly; back_fat, front_fat: thickness of subcutaneous fat in mm.
        infiltration: share of fat in the back muscles. seed: of what must be alike in all slices of one person.
        organs: centres and half axes of the organs, as the painter drew them: ``(tissue, x, p, z, hp, hz, hx)``.
    """

    girth: float
    back_fat: float
    front_fat: float
    infiltration: float
    seed: int
    organs: tuple[tuple, ...]


def draw_habitus(spine: Spine, rng: np.random.Generator) -> Habitus:
    """A random person for this spine."""
    weight = rng.gamma(2.0, 0.5)
    return Habitus(
        girth=float(min(45 * weight, 130)),
        back_fat=float(np.clip(6 + 12 * weight * rng.uniform(0.5, 1.5), 4, 60)),
        front_fat=float(np.clip(4 + 14 * weight * rng.uniform(0.4, 1.5), 3, 60)),
        infiltration=float(rng.beta(1.5, 3)),
        seed=int(rng.integers(2**31)),
        organs=tuple(_organs(spine, rng)),
    )


class _Lines:
    """Curves of the person as functions of the row: front and back of the bodies, tips of the spinous processes."""

    def __init__(self, sheet: Sheet, spine: Spine, habitus: Habitus):
        order = np.argsort([body.centre[1] for body in spine.vertebrae])
        bodies = [spine.vertebrae[number] for number in order]
        heights = np.array([body.centre[1] for body in bodies])
        rows = sheet.z[:, 0]
        smooth = 14 / sheet.pixel_mm

        def curve(values: list[float], sigma: float = smooth) -> np.ndarray:
            return ndimage.gaussian_filter1d(np.interp(rows, heights, values), sigma, mode="nearest")[:, None]

        self.front = curve([body.place(body.depth / 2, 0)[0] for body in bodies], smooth / 3)
        self.back = curve([body.place(-body.depth / 2, 0)[0] for body in bodies], smooth / 3)
        self.tips = curve([body.place(-body.depth / 2 - 50 * spine.size, -8)[0] for body in bodies])
        names = [body.name for body in bodies]
        known = sorted((names.index(name), value) for name, value in _FRONT_MM.items())
        wall = np.interp(np.arange(len(names)), *zip(*known)) * spine.size
        belly = np.interp(np.arange(len(names)), [names.index(name) for name in ("S3", "L4", "T9")], [0.4, 1, 0.2])
        self.wall = curve([body.place(body.depth / 2, 0)[0] + w + habitus.girth * b
                           for body, w, b in zip(bodies, wall, belly)])  # fmt: skip


def paint_surroundings(sheet: Sheet, spine: Spine, habitus: Habitus) -> None:
    """Everything but the column, from the skin inwards. The same habitus paints the same person in every slice."""
    rng = np.random.default_rng([habitus.seed, int(abs(sheet.x_mm) / 4)])
    lines = _Lines(sheet, spine, habitus)
    z, p = sheet.z, sheet.p
    texture = [smooth_field(sheet.tissue.shape, (sheet.pixel_mm,) * 2, scale, rng) for scale in (5.0, 22.0)]
    wave = smooth_field((len(z), 1), (sheet.pixel_mm, 1.0), 60.0, rng)
    neck = _ramp(z, spine.named("T3").centre[1], spine.named("C7").centre[1])
    back_fat = np.maximum(habitus.back_fat * (1 - 0.3 * neck) + 2.0 * wave, 3.0)
    muscle_back = lines.tips - 3.0
    skin_back = muscle_back - back_fat
    front_fat = np.maximum(habitus.front_fat * (1 - 0.75 * neck) + 1.5 * wave, 2.5)
    sheet.where((p > skin_back - 2) & (p < lines.wall + 2), T.SKIN)
    sheet.where((p > skin_back) & (p < lines.wall), T.FAT)
    sheet.where((p > muscle_back) & (p < lines.wall - front_fat), T.MUSCLE)
    fatty = texture[0] * 0.6 + texture[1] * 0.8 > _threshold(habitus.infiltration)
    sheet.where((p > muscle_back) & (p < lines.back) & fatty, T.INFILTRATED)
    _paint_inside(sheet, spine, lines, front_fat, texture)
    for tissue, x, *shape in habitus.organs:
        _paint_organ(sheet, tissue, x, shape, rng)
    _paint_airway_and_aorta(sheet, spine, lines, rng)
    sheet.where((p > lines.front) & (p < lines.front + 1.2), T.LIGAMENT)
    if abs(sheet.x_mm - spine.vertebrae[-1].x_mm) < 45:
        _paint_head(sheet, spine, rng)


def _ramp(z: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``."""
    return np.clip((z - low) / (high - low), 0, 1)


def _threshold(share: float) -> float:
    """Level of a field of standard deviation near 1 that ``share`` of it exceeds."""
    from scipy.stats import norm

    return float(norm.ppf(1 - np.clip(share, 0.01, 0.99)))


def _paint_inside(sheet: Sheet, spine: Spine, lines: _Lines, front_fat: np.ndarray, texture: list[np.ndarray]) -> None:
    """Chest and belly in front of the column: lungs, fat and bowel."""
    z, p = sheet.z, sheet.p
    within = (p > lines.front + 2) & (p < lines.wall - front_fat - 9)
    chest = within & (z < spine.named("T1").centre[1]) & (z > spine.named("T11").centre[1])
    belly = within & (z <= spine.named("T11").centre[1])
    beside = abs(sheet.x_mm - spine.named("T7").x_mm)
    sheet.where(chest, T.VISCERAL_FAT if beside < 14 else T.LUNG)
    if beside < 22:
        sheet.where(chest & (p > lines.front + 28) & (texture[1] > 0.3), T.LUNG)
    sheet.where(belly, T.VISCERAL_FAT)
    loops = belly & (p > lines.front + 26)
    sheet.where(loops & (texture[1] > -0.1), T.BOWEL)
    sheet.where(loops & (texture[1] > 0.25), T.BOWEL_CONTENT)
    sheet.where(loops & (texture[1] > 1.2), T.VOID)
    psoas = belly & (p < lines.front + 12) & (abs(sheet.x_mm - spine.named("L3").x_mm) > 20)
    sheet.where(psoas, T.MUSCLE)


def _organs(spine: Spine, rng: np.random.Generator) -> list[tuple]:
    """(tissue, x, p, z, half p, half z, half x) of the large organs, in mm."""
    size = spine.size

    def near(name: str, forward: float, up: float = 0.0) -> tuple[float, float, float]:
        body = spine.named(name)
        return (body.x_mm, body.centre[0] + body.depth / 2 + forward * size, body.centre[1] + up * size)

    def placed(tissue: Tissue, name: str, forward: float, half: tuple, spread: float = 8.0) -> tuple:
        x, p, z = near(name, forward)
        own = np.array(half) * size * np.exp(rng.normal(0, 0.15, 3))
        return (tissue, x + rng.normal(0, spread), p + rng.normal(0, spread), z + rng.normal(0, spread), *own)

    return [
        placed(T.HEART, "T7", 62, (36, 45, 45)),
        placed(T.FLUID if rng.random() < 0.3 else T.HEART, "T7", 34, (16, 24, 22)),
        placed(T.LIVER, "T11", 72, (40, 40, 40), 14), placed(T.ORGAN, "L1", 30, (11, 18, 40)),
        placed(T.ORGAN, "S3", 70, (24, 34, 28), 12), placed(T.FLUID, "S4", 115, (28, 26, 30), 14),
        placed(T.BOWEL, "S2", 26, (13, 26, 16)), placed(T.BOWEL_CONTENT, "S2", 26, (8, 19, 11), 3),
    ]  # fmt: skip


def _paint_organ(sheet: Sheet, tissue: Tissue, x: float, shape: list[float], rng: np.random.Generator) -> None:
    p, z, half_p, half_z, half_x = shape
    ratio = abs(sheet.x_mm - x) / half_x
    if ratio < 1:
        share = np.sqrt(1 - ratio**2)
        outline = wobbly(ellipse((p, z), (half_p * share, half_z * share)), 0.06 * half_p, rng)
        inside = (T.LUNG, T.VISCERAL_FAT, T.BOWEL, T.BOWEL_CONTENT, T.VOID, T.MUSCLE, T.HEART)
        sheet.polygon(rounded(outline), tissue, over=inside)


def _paint_airway_and_aorta(sheet: Sheet, spine: Spine, lines: _Lines, rng: np.random.Generator) -> None:
    """Pharynx and trachea, gullet, aorta and great veins as tubes in front of the column."""
    z, p, size = sheet.z, sheet.p, spine.size

    def tube(top: str, bottom: str, start: float, stop: float, tissue: Tissue, x: float, half: float) -> None:
        ratio = abs(sheet.x_mm - spine.named(bottom).x_mm - x) / half
        if ratio >= 1:
            return
        rows = (z < spine.named(top).centre[1]) & (z > spine.named(bottom).centre[1])
        middle, reach = lines.front + (start + stop) / 2 * size, (stop - start) / 2 * size * np.sqrt(1 - ratio**2)
        sway = 1.5 * np.sin(z / 23 + rng.uniform(0, 6))
        sheet.where(rows & (np.abs(p - middle - sway) < reach), tissue)

    gap = rng.uniform(3, 7)
    tube("C3", "T9", gap, gap + 9, T.MUSCLE, 0.0, 9)
    tube("C2", "C6", gap, gap + rng.uniform(8, 16), T.AIRWAY, 0.0, 13)
    tube("C6", "T5", gap + 8, gap + 8 + rng.uniform(12, 18), T.AIRWAY, 0.0, 10)
    tube("T4", "T5", 20, 44, T.VESSEL, 4.0, 16)
    tube("T5", "T11", 1, 22, T.VESSEL, -10.0 + rng.normal(0, 4), 12)
    tube("T11", "L4", 4, 22, T.VESSEL, -6.0 + rng.normal(0, 5), 10)
    tube("T9", "L5", 4, 24, T.VESSEL if rng.random() < 0.6 else T.VEIN, 18.0, 11)


def _paint_head(sheet: Sheet, spine: Spine, rng: np.random.Generator) -> None:
    """Brain, cerebellum, brainstem, clivus, occiput, scalp, and a rough face."""
    axis, size = spine.vertebrae[-1], spine.size
    top = axis.place(0, axis.height / 2 + 22 * size)  # above the dens: the basion lies just in front
    offset = abs(sheet.x_mm - axis.x_mm)
    share = np.sqrt(max(0.0, 1 - (offset / 75) ** 2))
    middle = top + np.array([2, 74]) * size
    skull = ((14, T.SKIN), (12, T.FAT), (7, T.CORTEX), (5.5, T.POSTERIOR_MARROW), (2, T.CORTEX), (0, T.CSF))
    for grow, tissue in skull:
        sheet.polygon(ellipse(middle, ((84 * size + grow) * share, (62 * size + grow) * share)), tissue)
    sheet.polygon(wobbly(ellipse(middle + np.array([0, 8]), (80 * size * share, 51 * size * share)), 1.2, rng), T.BRAIN)
    sheet.polygon(wobbly(ellipse(top + np.array([-36, 30]) * size, (27 * size, 20 * size)), 1.5, rng), T.CEREBELLUM)
    face = np.array([(22, 8), (95, 14), (92, -50), (60, -75), (30, -45), (14, -10)]) * size + top
    sheet.polygon(rounded(wobbly(face, 3, rng)), T.MUSCLE, over=(T.AIR, T.SKIN, T.FAT, T.MUSCLE, T.CORTEX))
    for _ in range(7):
        centre = top + np.array([rng.uniform(26, 85), rng.uniform(-55, 8)]) * size
        tissue = rng.choice([T.AIRWAY, T.FAT, T.CORTEX, T.POSTERIOR_MARROW, T.MUSCLE, T.ORGAN])
        sheet.polygon(ellipse(centre, rng.uniform(4, 14, 2), rng.uniform(0, 3)), int(tissue), over=(T.MUSCLE,))
    sheet.polygon(rounded(top + np.array([(12, 8), (16, 8), (24, -40), (14, -44)]) * size, 1), T.AIRWAY)
    if offset < 14:
        clivus = top + np.array([(4, 3), (8, 0), (34, 34), (22, 40)]) * size
        for grow, tissue in ((1.0, T.CORTEX), (0.72, T.FATTY_MARROW)):
            inner = clivus.mean(axis=0) + (clivus - clivus.mean(axis=0)) * grow
            sheet.polygon(rounded(inner, 1), tissue)
        pons = top + np.array([(-14, -8), (-4, -8), (-2, 12), (6, 22), (4, 42), (-10, 46), (-16, 24)]) * size
        sheet.polygon(rounded(pons), T.CORD)
        sheet.polygon(ellipse(top + np.array([-19, 27]) * size, (3.5 * size, 8 * size), 0.2), T.CSF)
    occiput = top + np.array([(-28, -2), (-34, -6), (-80, 20), (-74, 24)]) * size
    sheet.polygon(occiput, T.CORTEX, over=(T.CSF, T.BRAIN, T.FAT, T.MUSCLE, T.POSTERIOR_MARROW))
    if offset < 16:
        sheet.tube(*(axis.place(np.array([b, b - 4, b - 6]), axis.height / 2 + np.array([14, 20, 27]))
                     for b in (-axis.depth / 2 - 1, -axis.depth / 2 - 19)), T.CSF)  # fmt: skip
