"""Tissues of the painted spine and how grey they may be: priors of T1, T2, STIR and proton density, mixed at random.

The priors are grey values 0..1 as a reader sees them relative to each other, not physics. Half of all contrasts keep
near a prior, the rest are mixtures, inversions of order or free, so that a network learns shapes rather than greys
(domain randomisation in the manner of SynthSeg).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np


class Tissue(IntEnum):
    """Values of a painted map."""

    AIR = 0
    SKIN = auto()
    FAT = auto()
    MUSCLE = auto()
    LIGAMENT = auto()
    VISCERAL_FAT = auto()
    LUNG = auto()
    AIRWAY = auto()
    VESSEL = auto()
    HEART = auto()
    LIVER = auto()
    BOWEL = auto()
    BOWEL_CONTENT = auto()
    FLUID = auto()
    ORGAN = auto()
    CORTEX = auto()
    MARROW = auto()
    POSTERIOR_MARROW = auto()
    ANNULUS = auto()
    NUCLEUS = auto()
    CSF = auto()
    CORD = auto()
    ROOTS = auto()
    EPIDURAL_FAT = auto()
    DURA = auto()
    BRAIN = auto()
    CEREBELLUM = auto()
    OEDEMA = auto()
    FATTY_MARROW = auto()
    SCLEROSIS = auto()
    HAEMANGIOMA = auto()
    METAL = auto()
    VOID = auto()
    VEIN = auto()
    CARTILAGE = auto()
    INFILTRATED = auto()
    CLASS_A = auto()
    CLASS_B = auto()
    CLASS_C = auto()
    CLASS_D = auto()
    CLASS_E = auto()


T = Tissue
#: Tissue -> (T1, T2, STIR, proton density). CLASS_A to CLASS_E are the unnamed surroundings of real label maps, in the
#: order of their brightness in T2.
PRIORS: dict[Tissue, tuple[float, float, float, float]] = {
    T.AIR: (0, 0, 0, 0), T.SKIN: (0.4, 0.35, 0.3, 0.5), T.FAT: (0.95, 0.8, 0.08, 0.85),
    T.MUSCLE: (0.35, 0.18, 0.3, 0.4), T.LIGAMENT: (0.12, 0.1, 0.1, 0.15), T.VISCERAL_FAT: (0.9, 0.72, 0.08, 0.8),
    T.LUNG: (0.05, 0.05, 0.06, 0.06), T.AIRWAY: (0.01, 0.01, 0.01, 0.01), T.VESSEL: (0.08, 0.05, 0.06, 0.1),
    T.HEART: (0.35, 0.2, 0.35, 0.4), T.LIVER: (0.5, 0.25, 0.3, 0.45), T.BOWEL: (0.35, 0.25, 0.35, 0.45),
    T.BOWEL_CONTENT: (0.3, 0.5, 0.5, 0.5), T.FLUID: (0.15, 1.0, 1.0, 0.7), T.ORGAN: (0.38, 0.45, 0.5, 0.5),
    T.CORTEX: (0.06, 0.05, 0.05, 0.06), T.MARROW: (0.55, 0.38, 0.15, 0.45),
    T.POSTERIOR_MARROW: (0.62, 0.45, 0.14, 0.5), T.ANNULUS: (0.28, 0.14, 0.15, 0.25),
    T.NUCLEUS: (0.36, 0.62, 0.7, 0.5), T.CSF: (0.1, 1.0, 1.0, 0.6), T.CORD: (0.45, 0.42, 0.45, 0.55),
    T.ROOTS: (0.36, 0.4, 0.42, 0.5), T.EPIDURAL_FAT: (0.92, 0.8, 0.1, 0.8), T.DURA: (0.2, 0.12, 0.12, 0.2),
    T.BRAIN: (0.5, 0.45, 0.45, 0.6), T.CEREBELLUM: (0.47, 0.48, 0.48, 0.6), T.OEDEMA: (0.25, 0.65, 0.75, 0.5),
    T.FATTY_MARROW: (0.85, 0.7, 0.08, 0.7), T.SCLEROSIS: (0.12, 0.1, 0.1, 0.12),
    T.HAEMANGIOMA: (0.8, 0.8, 0.5, 0.7), T.METAL: (0.01, 0.01, 0.02, 0.01), T.VOID: (0.03, 0.03, 0.03, 0.03),
    T.VEIN: (0.3, 0.7, 0.6, 0.5), T.CARTILAGE: (0.35, 0.3, 0.35, 0.45), T.INFILTRATED: (0.65, 0.5, 0.2, 0.6),
    T.CLASS_A: (0.04, 0.05, 0.04, 0.05), T.CLASS_B: (0.3, 0.15, 0.25, 0.3), T.CLASS_C: (0.4, 0.28, 0.3, 0.42),
    T.CLASS_D: (0.7, 0.5, 0.2, 0.6), T.CLASS_E: (0.95, 0.8, 0.08, 0.85),
}  # fmt: skip
#: Standard deviation of the texture as a share of the grey.
TEXTURE = {T.FAT: 0.06, T.MUSCLE: 0.14, T.VISCERAL_FAT: 0.12, T.LIVER: 0.08, T.MARROW: 0.08, T.POSTERIOR_MARROW: 0.12,
           T.ANNULUS: 0.12, T.NUCLEUS: 0.1, T.ROOTS: 0.2, T.CSF: 0.05, T.BRAIN: 0.1, T.ORGAN: 0.15, T.LUNG: 0.4,
           T.BOWEL: 0.25, T.BOWEL_CONTENT: 0.35, T.HEART: 0.2, T.VESSEL: 0.3, T.LIGAMENT: 0.25, T.HAEMANGIOMA: 0.2,
           T.INFILTRATED: 0.3, T.EPIDURAL_FAT: 0.1, T.CLASS_B: 0.15, T.CLASS_C: 0.15, T.CLASS_D: 0.15,
           T.CLASS_E: 0.08, T.OEDEMA: 0.15}  # fmt: skip
#: Tissues that give no signal whatever the sequence.
_SILENT = (T.AIR, T.AIRWAY, T.METAL, T.VOID)
_LISTED = np.array([PRIORS[tissue] for tissue in Tissue], np.float32)
_TEXTURED = np.array([TEXTURE.get(tissue, 0.04) for tissue in Tissue], np.float32)


@dataclass(frozen=True)
class Contrast:
    """Grey of every tissue.

    Attributes:
        mean: by tissue, 0..1. texture: standard deviation within it.
        disc_range: how far the grey of the nuclei follows their health: 1 fully, 0 not at all.
        spread: standard deviation of the grey from one vertebra or disc to the next.
        kind: ``"t1"``, ``"t2"``, ``"stir"``, ``"pd"``, ``"mixed"`` or ``"free"``.
    """

    mean: np.ndarray
    texture: np.ndarray
    disc_range: float
    spread: float
    kind: str


def draw_contrast(rng: np.random.Generator, kind: str | None = None) -> Contrast:
    """A random contrast; ``kind`` names one, otherwise T2 and T1 are the most frequent."""
    kind = kind or str(rng.choice(["t2", "t1", "stir", "pd", "mixed", "free"], p=[0.4, 0.28, 0.08, 0.05, 0.11, 0.08]))
    if kind == "free":
        mean = rng.uniform(0.03, 1.0, len(_LISTED)).astype(np.float32)
        mean[T.CORTEX] = rng.uniform(0, 0.3)
    elif kind == "mixed":
        weights = rng.dirichlet([0.6] * 4).astype(np.float32)
        mean = _LISTED @ weights
    else:
        mean = _LISTED[:, ["t1", "t2", "stir", "pd"].index(kind)].copy()
    mean = mean * np.exp(rng.normal(0, 0.16, len(mean))) + rng.normal(0, 0.025, len(mean))
    mean = np.clip(mean, 0.0, 1.3) ** np.exp(rng.normal(0, 0.15))
    for tissue in _SILENT:
        mean[tissue] = abs(rng.normal(0, 0.01))
    texture = mean * _TEXTURED * rng.uniform(0.4, 2.0) * np.exp(rng.normal(0, 0.3, len(mean)))
    follows = {"t1": 0.15, "pd": 0.4, "free": rng.uniform(0, 1), "mixed": 0.6}.get(kind, 1.0)
    return Contrast(mean.astype(np.float32), texture.astype(np.float32), follows, float(rng.uniform(0.02, 0.1)), kind)
