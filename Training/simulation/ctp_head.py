"""Simulated CT perfusion of strokes in real head anatomy, with exact truth.

    label map -> pose on fine slices -> stroke by territory -> perfusion -> curves -> slices -> motion -> noise

Every random choice comes from the generator passed in; the same seed gives the same series.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from NeuraxisLib.volume import Volume
from Training.simulation import anatomy as anatomies
from Training.simulation.ctp_anatomy import StrokeSources
from Training.simulation.ctp_bolus import (
    DELAY_S,
    MTT_S,
    Bolus,
    carried,
    draw_bolus,
    fine_times,
    index_of,
    sampled,
    unit_curves,
)
from Training.simulation.ctp_grid import FineHead, pose
from Training.simulation.ctp_lesion import CORE, PENUMBRA, Stroke, draw_stroke
from Training.simulation.ctp_scan import Protocol, add_noise, draw_motion, draw_times, motion_matrices, move
from Training.simulation.ctp_tissue import Perfusion, perfusion_of
from Training.simulation.ctp_vessels import segment_value
from Training.simulation.fields import smooth_field

#: Truth labels, as the stroke task's label table has them.
HYPOPERFUSED, CORE_LABEL = 1, 2
#: Field of view in mm; every slice beyond the wanted ones at either end, for what motion brings in.
FIELD_MM, SPARE = (208.0, 240.0), 1
#: Pixels filled by vessels to this share stand for the vessel.
ARTERY_SHARE, VEIN_SHARE = 0.3, 0.8


@dataclass(frozen=True)
class StrokeOptions:
    """What is asked of a simulated series; None leaves it to chance.

    Attributes:
        size_px: rows and columns. slices, thickness_mm: of the slab. step_s: between frames. duration_s: of the series.
        noise_hu: SD of a pixel. kind, grade: of the stroke (``ctp_lesion.KINDS``, ``GRADES``). moves: "still", "mild"
        or "strong". head: number of the label map.
    """

    size_px: int = 256
    slices: int | None = None
    thickness_mm: float | None = None
    step_s: float | None = None
    duration_s: float | None = None
    noise_hu: float | None = None
    kind: str | None = None
    grade: str | None = None
    moves: str | None = None
    head: int | None = None


@dataclass(frozen=True)
class SimulatedStroke:
    """A simulated series and its truth.

    Attributes:
        frames: int16 (t, k, j, i) in HU with frame_times_s. times_s: (t, k) of every slice.
        labels: uint8 (k, j, i), 0, HYPOPERFUSED (outside the core) or CORE_LABEL. brain: bool, tissue.
        maps: "cbf" mL/100 g/min, "cbv" mL/100 g, "mtt" s, "delay" s, float32 (k, j, i), 0 outside the brain; where
            tissues share a voxel CBF and CBV are their means, MTT follows from them, delays count by flow.
        artery, vein: bool (k, j, i), pixels that show them (patent arteries that are not late).
        artery_hu, vein_hu: (t,) true curves above the baseline at the frames' mean times.
        motion: (t, 4, 4) mm about the grid's middle, axes (column, row, slice), of the still head -> of the frame.
        facts: what was drawn, for tables.
    """

    frames: Volume
    times_s: np.ndarray
    labels: np.ndarray
    brain: np.ndarray
    maps: dict[str, np.ndarray]
    artery: np.ndarray
    vein: np.ndarray
    artery_hu: np.ndarray
    vein_hu: np.ndarray
    motion: np.ndarray
    facts: dict[str, str | float]

    def volume_ml(self, mask: np.ndarray) -> float:
        """Volume of a mask on the grid in mL."""
        return float(mask.sum(axis=(1, 2)) @ self.frames.voxel_volumes_ml)


def simulate_stroke(
    sources: StrokeSources, rng: np.random.Generator, options: StrokeOptions | None = None
) -> SimulatedStroke:
    """Simulate one series; everything that ``options`` leaves open is drawn from ``rng``."""
    options = options or StrokeOptions()
    drawn = int(rng.integers(len(sources.maps)))
    head = sources.head(drawn if options.head is None else options.head)
    protocol = draw_protocol(options, rng)
    wide = replace(
        protocol,
        slices=protocol.slices + 2 * SPARE,
        times_s=np.pad(protocol.times_s, ((0, 0), (SPARE, SPARE)), mode="edge"),
    )
    fine = pose(sources, head, wide, rng)
    stroke = draw_stroke(fine.points, sources, rng, options.kind, options.grade)
    perfusion = perfusion_of(fine.labels[fine.points.mask], fine.points, sources.atlas, stroke, rng)
    bolus = draw_bolus(rng, protocol.start_s, protocol.slow_heart)
    vessels = _Vessels(fine, stroke, bolus, rng)
    frames = np.repeat(_baseline(fine, vessels, protocol.pixel_mm, rng)[None], len(wide.times_s), axis=0)
    shape = float(rng.choice([1.0, 2.0, 3.0, 4.0, 6.0], p=[0.1, 0.2, 0.4, 0.2, 0.1]))
    truth = _add_tissue(frames, fine, stroke, perfusion, unit_curves(bolus.artery, shape), wide.times_s)
    vessels.add(frames, wide.times_s, protocol.pixel_mm)
    spacing = (protocol.thickness_mm, protocol.pixel_mm, protocol.pixel_mm)
    motion = motion_matrices(draw_motion(protocol.moves, len(frames), rng))
    move(frames, motion, spacing)
    frames = frames[:, SPARE:-SPARE]
    add_noise(frames, protocol.noise_hu, protocol.pixel_mm, rng)
    facts = _facts(head.name, protocol, fine, stroke, bolus, shape, motion)
    return _result(frames, protocol, truth, vessels, bolus, motion, facts)


def draw_protocol(options: StrokeOptions, rng: np.random.Generator) -> Protocol:
    """Draw how the series is taken; all draws are made whatever is given, so that one option changes nothing else."""
    thickness = float(rng.choice([5.0, 8.0, 10.0], p=[0.6, 0.15, 0.25]))
    thickness = options.thickness_mm or thickness
    coverage = float(rng.choice([40.0, 80.0, 100.0, 140.0], p=[0.1, 0.5, 0.25, 0.15]))
    slices = options.slices or max(4, round(coverage / thickness))
    pixel = rng.uniform(*FIELD_MM) / options.size_px
    kind = rng.choice(["usual", "early", "late"], p=[0.84, 0.08, 0.08])
    start = {"usual": rng.uniform(6, 14), "early": rng.uniform(3, 5), "late": rng.uniform(16, 24)}[str(kind)]
    slow = bool(rng.random() < 0.12)
    duration = rng.uniform(60, 75) if rng.random() < 0.7 else rng.uniform(42, 60)
    noise = float(np.clip(np.exp(rng.normal(np.log(4.5), 0.4)), 2, 10))
    moves = str(rng.choice(["still", "mild", "strong"], p=[0.58, 0.27, 0.15]))
    times = draw_times(slices, rng, options.duration_s or duration, options.step_s)
    noise = noise if options.noise_hu is None else options.noise_hu
    return Protocol(options.size_px, slices, thickness, pixel, times, start, noise, options.moves or moves, slow)


class _Vessels:
    """Which voxels show which vessel, and their curves."""

    def __init__(self, fine: FineHead, stroke: Stroke, bolus: Bolus, rng: np.random.Generator):
        self.fine, self.bolus = fine, bolus
        self.sinus = ((fine.labels == anatomies.VEIN) & (fine.artery < 0.3)).astype(np.float32)
        self.carotid = (fine.labels == anatomies.ARTERY) & (fine.artery < 0.3)
        late, poor = stroke.arteries, 1 - stroke.strength
        self.blocked = segment_value(late[0], stroke.left) if late else 0
        self.late = [segment_value(name, stroke.left) for name in late[1:]]
        self.late_s, self.late_height = 4.0 + 3.0 * poor + rng.uniform(-0.5, 0.5), rng.uniform(0.35, 0.8)
        self.dense_hu = rng.uniform(5, 25)
        self.open = np.where(np.isin(fine.segment, [self.blocked, *self.late]), 0, fine.artery)
        self.open = np.maximum(self.open, self.carotid)

    def add(self, frames: np.ndarray, times_s: np.ndarray, pixel_mm: float) -> None:
        """Add the vessels' contrast to frames (t, k, j, i), in place."""
        sigma = 0.45 / pixel_mm
        late = np.where(np.isin(self.fine.segment, self.late), self.fine.artery, 0) * self.late_height
        slow = carried(self.bolus.artery, 3.0, 2.0)
        shares = [_to_slices(part, self.fine.fine) for part in (self.open, self.sinus, late)]
        self.open_share, self.sinus_share = shares[:2]
        shares = [ndimage.gaussian_filter(share, (0, sigma, sigma)) for share in shares]
        for k in range(frames.shape[1]):
            curves = [self.bolus.artery_at(times_s[:, k]), self.bolus.vein_at(times_s[:, k])]
            curves.append(np.interp(times_s[:, k] - self.late_s, fine_times(), slow))
            for share, curve in zip(shares, curves):
                j, i = np.nonzero(share[k] > 0.01)
                frames[:, k, j, i] += curve[:, None].astype(np.float32) * share[k, j, i]


def _baseline(fine: FineHead, vessels: _Vessels, pixel_mm: float, rng: np.random.Generator) -> np.ndarray:
    """(k, j, i) HU before contrast: the tissues of the head CT simulation, a dense clot where an artery is blocked."""
    table, hu = anatomies.hu_table(int(fine.labels.max()) + 1, rng)
    image = table[fine.labels]
    image[fine.inside & (fine.labels == 0)] = hu["csf"]
    soft = fine.inside | np.isin(fine.labels, (anatomies.SOFT_TISSUE, anatomies.SKIN, anatomies.MUCOSA))
    slow = smooth_field(image.shape, fine.points.spacing_mm, 30.0, rng) * rng.uniform(0.3, 1.5)
    image += np.where(soft, slow, 0)
    fat = (fine.labels == anatomies.SOFT_TISSUE) & (smooth_field(image.shape, fine.points.spacing_mm, 9.0, rng) > 0.5)
    image[fat] = rng.normal(-90, 12)
    image += fine.artery * (hu["vessel"] + vessels.dense_hu * (fine.segment == vessels.blocked) - image)
    sigma = rng.uniform(0.4, 0.7) / pixel_mm
    return ndimage.gaussian_filter(_to_slices(image, fine.fine), (0, sigma, sigma))


def _to_slices(fine_array: np.ndarray, fine: int) -> np.ndarray:
    """Average each run of ``fine`` slices into one, float32."""
    return fine_array.reshape(-1, fine, *fine_array.shape[1:]).mean(axis=1, dtype=np.float32)


def _add_tissue(
    frames: np.ndarray,
    fine: FineHead,
    stroke: Stroke,
    perfusion: Perfusion,
    curves: np.ndarray,
    times_s: np.ndarray,
) -> dict[str, np.ndarray]:
    """Add the tissue's contrast to frames (t, k, j, i), in place; returns the truth on their grid.

    Truth: "cbf", "cbv", "mtt", "delay", float32; "share" of the voxel that is tissue; "hypo", "core" shares of it.
    """
    mask, shape = fine.points.mask, frames.shape[1:]
    truth = {name: np.zeros(shape, np.float32) for name in ("cbf", "cbv", "delay", "share", "hypo", "core")}
    row = index_of(perfusion.mtt_s, perfusion.delay_s)
    mtt, delay = MTT_S[row // len(DELAY_S)], DELAY_S[row % len(DELAY_S)]
    flow = 60 * perfusion.cbv / mtt
    values = {
        "cbf": flow, "cbv": perfusion.cbv, "delay": delay * flow, "share": np.ones_like(flow),
        "hypo": stroke.state >= PENUMBRA, "core": stroke.state == CORE,
    }  # fmt: skip
    bounds = np.concatenate([[0], np.cumsum(mask.sum(axis=(1, 2)))])
    same = np.ptp(times_s, axis=1).max() < 1e-9
    table = sampled(curves, times_s[:, 0])
    for n in range(len(mask)):
        k, own = n // fine.fine, slice(bounds[n], bounds[n + 1])
        if n % fine.fine == 0 and not same:
            table = sampled(curves, times_s[:, k])
        j, i = np.nonzero(mask[n])
        weight = (perfusion.cbv[own] / fine.fine)[:, None]
        frames[:, k, j, i] += (table[row[own]] * weight).T
        for name, value in values.items():
            truth[name][k, j, i] += value[own] / fine.fine
    filled = np.maximum(truth["share"], 1e-6)
    truth["delay"] = truth["delay"] / np.maximum(truth["cbf"], 1e-6)
    truth["mtt"] = 60 * truth["cbv"] / np.maximum(truth["cbf"], 1e-6)
    for name in ("hypo", "core"):
        truth[name] /= filled
    return truth


def _result(
    frames: np.ndarray,
    protocol: Protocol,
    truth: dict[str, np.ndarray],
    vessels: _Vessels,
    bolus: Bolus,
    motion: np.ndarray,
    facts: dict[str, str | float],
) -> SimulatedStroke:
    """Round the frames, crop the truth to them and put both on their grid."""
    inner = slice(SPARE, -SPARE)
    truth = {name: values[inner] for name, values in truth.items()}
    brain = truth["share"] > 0.5
    labels = np.where(truth["core"] > 0.5, CORE_LABEL, np.where(truth["hypo"] > 0.5, HYPOPERFUSED, 0)) * brain
    maps = {name: np.where(brain, truth[name], 0).astype(np.float32) for name in ("cbf", "cbv", "mtt", "delay")}
    pixel, thickness = protocol.pixel_mm, protocol.thickness_mm
    matrix = np.diag([-pixel, -pixel, thickness, 1.0])
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(frames.shape[:0:-1]) - 1) / 2)
    mean = protocol.times_s.mean(axis=1)
    array = np.rint(np.clip(frames, -1024, 3071)).astype(np.int16)
    found = SimulatedStroke(
        Volume(array, matrix, "HU", frame_times_s=mean, meta={"modality": "CT"}),
        protocol.times_s,
        labels.astype(np.uint8),
        brain,
        maps,
        vessels.open_share[inner] > ARTERY_SHARE,
        vessels.sinus_share[inner] > VEIN_SHARE,
        bolus.artery_at(mean),
        bolus.vein_at(mean),
        motion,
        facts,
    )
    facts["hypoperfused_ml"] = round(found.volume_ml(found.labels > 0), 2)
    facts["core_ml"] = round(found.volume_ml(found.labels == CORE_LABEL), 2)
    return found


def _facts(
    head: str, protocol: Protocol, fine: FineHead, stroke: Stroke, bolus: Bolus, shape: float, motion: np.ndarray
) -> dict[str, str | float]:
    """What was drawn, in words and numbers; the side is the patient's in the images."""
    times = protocol.times_s
    left = stroke.left != fine.mirrored
    corner = np.array([80.0, 0, 0, 1])
    moved = np.linalg.norm(motion @ corner - corner, axis=1).max()
    return {
        "head": head,
        "kind": stroke.kind,
        "side": "none" if stroke.kind == "none" else ("left" if left else "right"),
        "grade": "none" if stroke.kind == "none" else stroke.grade,
        "real_core": int(stroke.real_core),
        "noise_hu": round(protocol.noise_hu, 2),
        "frames": len(times),
        "duration_s": round(float(np.ptp(times)), 1),
        "shuttle": int(np.ptp(times, axis=1).max() > 0),
        "start_s": round(bolus.start_s, 1),
        "slow_heart": int(bolus.slow_heart),
        "artery_peak_hu": round(float(bolus.artery.max()), 1),
        "residue_shape": shape,
        "motion_mm": round(float(moved), 2),
    }
