"""Strokes by vascular territory: which tissue is short of blood, how badly, and which part of it is lost.

Collaterals come over the border from the neighbouring territories, so that shortage grows with the distance from
there; perforators have none. A good collateral grade pushes the border of the hypoperfused tissue inward, shortens
delays, keeps blood volume up and leaves a small core. The core is the worst tissue by that rule, or a real infarct.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from Training.simulation.ctp_anatomy import StrokeSources
from Training.simulation.fields import smooth_field

NORMAL, RIM, PENUMBRA, CORE = range(4)
MCA = ("deep", "mca_superior", "mca_inferior")
#: Kind -> territories, arteries without (first) or with late flow, how often it is drawn.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], float]] = {
    "m1": (MCA, ("m1", "m2_superior", "m2_inferior"), 0.30),
    "m2_superior": (("mca_superior",), ("m2_superior",), 0.14),
    "m2_inferior": (("mca_inferior",), ("m2_inferior",), 0.11),
    "aca": (("aca",), ("a2",), 0.08),
    "pca": (("pca",), ("p1", "p2"), 0.12),
    "watershed": (MCA, (), 0.07),
    "lacune": (("deep",), (), 0.08),
    "none": ((), (), 0.10),
}
#: Collateral grade -> range of their strength 0..1, share of the hypoperfused tissue that is core.
GRADES = {"poor": ((0.0, 0.3), (0.35, 0.8)), "moderate": ((0.3, 0.7), (0.1, 0.4)), "good": ((0.7, 1.0), (0.0, 0.12))}
#: Distance in mm from the border at which collaterals no longer reach.
REACH_MM = 26.0
#: Real infarcts of this size in mL serve as cores, if at least half lies in the territory; tries to find one.
INFARCT_ML, TRIES = (2.0, 200.0), 12


@dataclass(frozen=True)
class Stroke:
    """What happened, for the voxels of tissue (n,) that the lesion was drawn for.

    Attributes:
        kind: of :data:`KINDS`. left: side in the atlas. grade: of the collaterals; strength: theirs, 0..1.
        state: uint8 NORMAL, RIM (benign oligaemia), PENUMBRA or CORE. severity: float32 0..1, of the shortage.
        real_core: whether a real infarct gave the core.
    """

    kind: str
    left: bool
    grade: str
    strength: float
    state: np.ndarray
    severity: np.ndarray
    real_core: bool

    @property
    def arteries(self) -> tuple[str, ...]:
        """Names of the arteries without or with late flow, the occluded one first."""
        return KINDS[self.kind][1]


@dataclass(frozen=True)
class TissuePoints:
    """Tissue voxels of a fine grid.

    Attributes:
        mask: bool (k, j, i), which voxels. spacing_mm: of the grid, (k, j, i).
        atlas_kji: float32 (3, n), where they lie in the atlas.
    """

    mask: np.ndarray
    spacing_mm: tuple[float, float, float]
    atlas_kji: np.ndarray

    def field(self, scale_mm: float, rng: np.random.Generator) -> np.ndarray:
        """(n,) values of a smooth random field of mean 0 and SD 1."""
        return smooth_field(self.mask.shape, self.spacing_mm, scale_mm, rng)[self.mask]

    def read(self, image: np.ndarray, step: float = 1.0, order: int = 1) -> np.ndarray:
        """(n,) values of an image on the atlas's grid taken every ``step`` voxels."""
        return ndimage.map_coordinates(image, self.atlas_kji / step, order=order, mode="nearest", prefilter=False)


def draw_stroke(
    points: TissuePoints,
    sources: StrokeSources,
    rng: np.random.Generator,
    kind: str | None = None,
    grade: str | None = None,
) -> Stroke:
    """Draw a stroke; ``kind`` of :data:`KINDS` and ``grade`` of :data:`GRADES` are drawn where None."""
    drawn = str(rng.choice(list(KINDS), p=[chance for _, _, chance in KINDS.values()]))
    left, drawn_grade = bool(rng.random() < 0.5), str(rng.choice(list(GRADES)))
    kind, grade = kind or drawn, grade or drawn_grade
    strength = float(rng.uniform(*GRADES[grade][0]))
    count = points.atlas_kji.shape[1]
    if kind == "none":
        return Stroke(kind, left, grade, strength, np.zeros(count, np.uint8), np.zeros(count, np.float32), False)
    if kind == "lacune":
        return _lacune(points, sources, rng, left, grade, strength)
    inner, severity = _shortage(points, sources, rng, kind, left, strength)
    state = np.where(inner > 0, PENUMBRA, np.where(inner > -rng.uniform(3, 7), RIM, NORMAL)).astype(np.uint8)
    real = None
    if sources.infarcts and rng.random() < 0.35:
        real = _real_core(points, sources, rng, kind, left)
    low, high = GRADES[grade][1]
    share = rng.uniform(low, high)
    hypoperfused = state == PENUMBRA
    if real is not None:
        core = hypoperfused & real
    else:
        worst = severity + 0.18 * points.field(24.0, rng) + 0.04 * points.field(9.0, rng)
        share = 0.0 if share < 0.02 or not hypoperfused.any() else share
        core = hypoperfused & (worst > np.quantile(worst[hypoperfused], 1 - share)) if share else np.zeros(count, bool)
    state[core] = CORE
    return Stroke(kind, left, grade, strength, state, severity, real is not None)


def _shortage(
    points: TissuePoints, sources: StrokeSources, rng: np.random.Generator, kind: str, left: bool, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) mm inside the border of the hypoperfused tissue (negative outside), and severity 0..1."""
    depth = points.read(sources.atlas.depth(KINDS[kind][0], left), 2.0) + 2.5 * points.field(12.0, rng)
    if kind == "watershed":
        half = rng.uniform(6, 11)
        top = sources.atlas.voxel_of(np.array([[0.0, 0.0, rng.uniform(5, 20)]]))[0, 0]
        inner = np.minimum(half - np.abs(depth), points.atlas_kji[0] - top)
        return inner, np.clip(inner / half, 0, 1).astype(np.float32)
    inner = depth - 9.0 * strength
    severity = np.clip(depth / REACH_MM, 0, 1)
    if kind == "m1":  # perforators are end arteries
        deep = np.isin(points.read(sources.atlas.labels, order=0), sources.atlas.values(("deep",), left))
        severity, inner = np.where(deep, 0.9, severity), np.where(deep, np.maximum(inner, 1.0), inner)
    return inner, severity.astype(np.float32)


def _real_core(
    points: TissuePoints, sources: StrokeSources, rng: np.random.Generator, kind: str, left: bool
) -> np.ndarray | None:
    """(n,) bool of a real infarct of the territory, mirrored where it must be; None if none was drawn."""
    own = sources.atlas.depth(KINDS[kind][0], left) > 0
    for _ in range(TRIES):
        infarct = sources.infarct(rng)
        if not INFARCT_ML[0] <= infarct.sum() / 1000 <= INFARCT_ML[1]:
            continue
        for candidate in (infarct, infarct[:, :, ::-1]):
            small = candidate[::2, ::2, ::2]
            if (small * own).sum() >= 0.5 * small.sum():
                return points.read(candidate) > 0.5
    return None


def _lacune(
    points: TissuePoints, sources: StrokeSources, rng: np.random.Generator, left: bool, grade: str, strength: float
) -> Stroke:
    """A small ellipsoid among the perforators."""
    deep = np.isin(points.read(sources.atlas.labels, order=0), sources.atlas.values(("deep", "choroidal"), left))
    among = np.flatnonzero(deep) if deep.any() else np.arange(len(deep))
    centre = points.atlas_kji[:, among[rng.integers(len(among))]]
    radii = rng.uniform(4, 9, 3)
    radius = np.sqrt(sum(((axis - c) / r) ** 2 for axis, c, r in zip(points.atlas_kji, centre, radii)))
    state = np.zeros(len(deep), np.uint8)
    state[radius < rng.uniform(1.3, 1.9)] = PENUMBRA
    state[radius < 1] = CORE
    return Stroke("lacune", left, grade, strength, state, (0.8 * (state > 0)).astype(np.float32), False)
