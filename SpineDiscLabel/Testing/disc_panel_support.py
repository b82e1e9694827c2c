"""What the panel's tests share: a lumbar spine whose discs are known, a result of the task on it, a worker with it."""

from __future__ import annotations

from functools import cache

import numpy as np
from synthetic_spines import spine_points

from NeuraxisLib.result import Landmark, Result, ScalarMap
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.discs import DISC_COUNT
from SpineDiscLabelLib.findings import UNSETTLED, chain_findings, evidence_text, other_rows, others_table
from SpineDiscLabelLib.naming import Chain, name_chain
from Testing.slicer_stand_in.fake_worker import FakeClient

#: Sagittal slices of 4 mm, pixels of 1.5 mm, 240 mm high; the stored axes run right to left, front to back, downward.
SHAPE = (9, 160, 100)
#: Levels of the usual spine that are in view, half open: T11/T12 to L5/S1.
IN_VIEW = (18, 24)


@cache
def discs_ras_mm() -> np.ndarray:
    """(6, 3) disc centres from T12/L1's upper neighbour down to L5/S1, around the origin."""
    points = spine_points(np.random.default_rng(3), size=0.95)[slice(*IN_VIEW)]
    return np.round(points - points.mean(axis=0), 2)


@cache
def spine_mr() -> Volume:
    """An MR of bright vertebrae and dark discs at :func:`discs_ras_mm`, int16 without a unit."""
    matrix = np.array([[0, 0, 4.0, -16], [-1.5, 0, 0, 74.5], [0, -1.5, 0, 119.5], [0, 0, 0, 1]])
    k, j, i = np.indices(SHAPE).reshape(3, -1)
    ras = matrix[:3, :3] @ np.stack([i, j, k]) + matrix[:3, 3:]
    image = np.full(ras.shape[1], 60.0)
    points = discs_ras_mm()
    along = np.interp(ras[2], points[::-1, 2], points[::-1, 1])
    column = (np.abs(ras[1] - along) < 17) & (np.abs(ras[0]) < 14)
    image[column] = 300
    for point in points:
        image[column & (np.abs(ras[2] - point[2]) < 5.5)] = 90
    image += np.random.default_rng(0).normal(0, 6, image.shape)  # no scan is without noise
    return Volume(image.reshape(SHAPE).astype(np.int16), matrix)


def candidates(evidence: float = 0.5, shift: int = 0) -> list[Candidate]:
    """One candidate per disc; its channel stands out as ``evidence`` says, ``shift`` levels too low."""
    made = []
    for level, point in zip(range(*IN_VIEW), discs_ras_mm()):
        seen = np.full(DISC_COUNT, 0.02)
        seen[min(level + shift, DISC_COUNT - 1)] = evidence
        made.append(Candidate(point, 0.8, seen))
    return made


def disc_result(volume: Volume, found: list[Candidate] | None = None) -> Result:
    """What the task would find with these candidates."""
    found = candidates() if found is None else found
    chain = name_chain(found)
    note = UNSETTLED if chain.relative else ""
    result = Result(
        "discs",
        volume,
        maps={"evidence": ScalarMap(volume.like(_heat(volume)), "Evidence of discs", (0.0, 1.0))},
        points=[Landmark(d.name, tuple(d.position_ras_mm), d.confidence, note) for d in chain.discs],
        warnings=[*chain.notes, "Trained on simulation, research use only."],
        provenance={"model": "fake", "chain": _told(chain, found)},
    )
    result.measurements, result.tables["discs"] = chain_findings(chain.discs, chain.probability, volume.regular())
    result.tables["alternatives"] = others_table(other_rows(chain.alternatives))
    return result


def _told(chain: Chain, found: list[Candidate]) -> dict:
    return {
        "probability": chain.probability,
        "relative": chain.relative,
        "notes": chain.notes,
        "others": {title: [*rest] for title, *rest in other_rows(chain.alternatives)},
        "confidence": {disc.name: round(disc.confidence, 4) for disc in chain.discs},
        "evidence_percent": {disc.name: evidence_text(found[disc.candidate].evidence) for disc in chain.discs},
    }


def _heat(volume: Volume) -> np.ndarray:
    """Warm spots at the discs."""
    heat = np.zeros(volume.array.shape, np.float32)
    for point in discs_ras_mm():
        i, j, k = np.rint((np.linalg.inv(volume.ijk_to_ras) @ [*point, 1])[:3]).astype(int)
        heat[k - 1 : k + 2, j - 4 : j + 5, i - 5 : i + 6] = 0.9
    return heat


class DiscClient(FakeClient):
    """Answers with :func:`disc_result` on the image of the job."""

    found: list[Candidate] | None = None

    def answer(self) -> None:
        """The worker is done."""
        self.finish(disc_result(self.handle.job.volume, self.found))

    def wait(self, handle) -> None:
        """As the client's own: until the run has ended."""
        self.answer()
        self.poll()


def add_spine(name: str = "Spine"):
    """The MR as a volume node, shown in the slice views."""
    import slicer

    volume = spine_mr()
    node = slicer.util.addVolumeFromArray(volume.array, ijkToRAS=volume.ijk_to_ras, name=name)
    node.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node
