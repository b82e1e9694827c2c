"""What may be wrong within a spine: endplate changes, Schmorl nodes, haemangiomas, cement, metal."""

from __future__ import annotations

import numpy as np

from Training.simulation.spine_anatomy import Disc, Spine


def add_pathology(spine: Spine, rng: np.random.Generator) -> None:
    """Put random findings into a spine, in place. Fractures are part of its shape already."""
    presacral = [disc for disc in spine.discs if disc.value]
    for disc in presacral:
        if disc.health < 0.45 and rng.random() < 0.3:
            _modic(disc, rng)
        if rng.random() < (0.1 if disc.upper.region in "TL" else 0.01):
            _schmorl(disc, rng)
    for body in spine.vertebrae:
        if body.region == "S":
            continue
        if rng.random() < 0.06:
            body.marks.append(("haemangioma", *_spot(rng, 0.12, 0.35)))
        if rng.random() < 0.06:
            body.marks.append((str(rng.choice(["spot", "fat_island"])), *_spot(rng, 0.06, 0.2)))
        if rng.random() < 0.015:
            body.marks.append(("all_oedema", 0.0, 0.0, 0.52, 0.5, 0.0))
        if rng.random() < 0.006:
            body.marks.append(("cement", *_spot(rng, 0.15, 0.3)))
    if rng.random() < 0.05:
        _implant(spine, presacral, rng)


def _spot(rng: np.random.Generator, low: float, high: float) -> tuple[float, ...]:
    """Place and half axes as shares of the body."""
    return (*rng.uniform(-0.25, 0.25, 2), *rng.uniform(low, high, 2), float(rng.uniform(-0.2, 0.2)))


def _modic(disc: Disc, rng: np.random.Generator) -> None:
    """Oedema, fat or sclerosis along both endplates of a worn disc."""
    kind = str(rng.choice(["oedema", "fatty", "sclerosis"], p=[0.35, 0.5, 0.15]))
    start = rng.uniform(0, 0.4)
    stop = rng.uniform(start + 0.35, 1.0)
    for body, side in ((disc.upper, -1.0), (disc.lower, 1.0)):
        if rng.random() < 0.8:
            body.marks.append((kind, side, float(rng.uniform(0.12, 0.4)), float(start), float(stop)))


def _schmorl(disc: Disc, rng: np.random.Generator) -> None:
    body, side = (disc.upper, -1.0) if rng.random() < 0.5 else (disc.lower, 1.0)
    body.marks.append(("schmorl", side, float(rng.uniform(-0.2, 0.2)), float(rng.uniform(0.08, 0.18)),
                       float(rng.uniform(0.08, 0.22))))  # fmt: skip


def _implant(spine: Spine, presacral: list[Disc], rng: np.random.Generator) -> None:
    """Screws over two to five levels, or a cage in one disc."""
    first = int(rng.integers(0, len(presacral) - 3))
    if rng.random() < 0.35:
        body = presacral[first].upper
        body.marks.append(("cage", 0.0, -0.62, 0.3, 0.16, 0.0))
        return
    for disc in presacral[first : first + int(rng.integers(2, 5))]:
        disc.upper.marks.append(("screw", float(rng.uniform(10, 16)), float(rng.uniform(0.5, 0.9)), 2.8))
