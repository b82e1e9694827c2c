"""Perfusion of every kind of tissue: blood volume, flow and delay of a healthy brain, and what a stroke does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from Training.simulation import anatomy as anatomies
from Training.simulation.ctp_anatomy import TerritoryAtlas
from Training.simulation.ctp_lesion import CORE, PENUMBRA, RIM, Stroke, TissuePoints

#: Labels -> CBF in mL/100 g/min, CBV in mL/100 g of healthy tissue.
GREY = (3, 42)
DEEP_GREY = (10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58)
CEREBELLAR_GREY = (8, 47)
HEALTHY = {
    GREY: (55.0, 3.9),
    DEEP_GREY: (50.0, 3.5),
    CEREBELLAR_GREY: (52.0, 3.8),
    (16,): (32.0, 2.5),
    (2, 41, 7, 46, 28, 60, 77, 85): (24.0, 2.0),
}
#: Everything else of the brain that is not fluid or vessel.
OTHER = (35.0, 2.8)
#: Arrival in s after the arteries at the base, by territory; white matter a little later.
ARRIVAL_S = {"aca": 0.8, "deep": 0.3, "mca_superior": 0.5, "mca_inferior": 0.6, "pca": 1.1, "posterior_fossa": 1.0}
WHITE_LATER_S = 0.4


@dataclass(frozen=True)
class Perfusion:
    """(n,) float32 of tissue voxels: CBV in mL/100 g, MTT and delay in s."""

    cbv: np.ndarray
    mtt_s: np.ndarray
    delay_s: np.ndarray


def is_tissue(labels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Brain tissue of a label map: no fluid, vessel or bone."""
    fluid = np.isin(labels, anatomies.VENTRICLES + anatomies.CSF + anatomies.CHOROID)
    return (labels > 0) & (labels < 500) & ~fluid & inside


def perfusion_of(
    labels: np.ndarray, points: TissuePoints, atlas: TerritoryAtlas, stroke: Stroke, rng: np.random.Generator
) -> Perfusion:
    """Perfusion of the tissue voxels with the labels (n,): every patient and region differs a little."""
    cbf, cbv = np.full(labels.shape, OTHER[0], np.float32), np.full(labels.shape, OTHER[1], np.float32)
    for values, (flow, volume) in HEALTHY.items():
        own = np.isin(labels, values)
        cbf[own], cbv[own] = flow, volume
    cbf *= rng.normal(1, 0.08) * np.clip(1 + 0.10 * points.field(25.0, rng), 0.7, 1.3)
    cbv *= rng.normal(1, 0.08) * np.clip(1 + 0.08 * points.field(25.0, rng), 0.7, 1.3)
    delay = _arrival(labels, points, atlas, rng)
    _apply(stroke, cbf, cbv, delay, points, rng)
    return Perfusion(cbv, 60 * cbv / cbf, np.maximum(delay, 0))


def _arrival(labels: np.ndarray, points: TissuePoints, atlas: TerritoryAtlas, rng: np.random.Generator) -> np.ndarray:
    """Delay in s of healthy tissue; in one patient of ten a narrow carotid delays one side by up to 1.3 s."""
    table = np.full(int(atlas.labels.max()) + 1, 0.8, np.float32)
    for left in (False, True):
        for name, seconds in ARRIVAL_S.items():
            table[list(atlas.values((name,), left))] = seconds
    narrow, side, seconds = rng.random() < 0.1, rng.random() < 0.5, rng.uniform(0.5, 1.3)
    if narrow:
        carotid = atlas.values(("aca", "deep", "mca_superior", "mca_inferior", "choroidal"), bool(side))
        table[list(carotid)] += seconds
    delay = table[points.read(atlas.labels, order=0)]
    delay += WHITE_LATER_S * np.isin(labels, anatomies.WHITE) + 0.25 * points.field(30.0, rng)
    return np.maximum(delay, 0).astype(np.float32)


def _apply(
    stroke: Stroke,
    cbf: np.ndarray,
    cbv: np.ndarray,
    delay: np.ndarray,
    points: TissuePoints,
    rng: np.random.Generator,
) -> None:
    """What the stroke does to flow, volume and delay, in place.

    Tissue at risk keeps 32 to 62 % of its flow and is at least 4.2 s late; the core keeps 5 to 18 %. Both are shares
    of what the same tissue had, so that white matter at risk comes close to the usual line of 30 % of normal flow.
    """
    rim, late, core = stroke.state == RIM, stroke.state >= PENUMBRA, stroke.state == CORE
    cbf[rim] *= rng.uniform(0.75, 0.9)
    delay[rim] += rng.uniform(0.4, 1.2)
    if not late.any():
        return
    severity, poor = stroke.severity[late], 1 - stroke.strength
    wander = points.field(10.0, rng)[late]
    share = np.clip(0.62 - 0.24 * severity - 0.06 * poor + 0.03 * wander, 0.32, 0.65)
    volume = 0.95 + 0.2 * stroke.strength - 0.1 * severity
    lost = core[late]
    depth = rng.uniform(0.07, 0.15) + 0.015 * wander
    share = np.where(lost, np.clip(depth, 0.05, 0.18), share)
    volume = np.where(lost, np.clip(rng.uniform(0.2, 0.38) + 0.04 * wander, 0.15, 0.45), volume)
    cbf[late] *= share
    cbv[late] *= volume
    later = 4.4 + (1.0 + 4.5 * poor) * severity + 0.4 * wander + 1.0 * lost
    delay[late] = np.clip(np.maximum(later, 4.2), 0, 14)
