"""A digital stroke head: ellipsoidal brain with cortex, white matter, ventricles, vessels, penumbra and core in mL.

Every tissue class has one curve, so that the truth is exact; ``variation`` makes blood volume and flow vary smoothly
over the brain for a harder head. Patient left is at high column numbers; the lesion is on the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from NeuraxisLib.volume import Volume
from Training.simulation.ctp_phantom import GammaVariate, _add_noise, tissue_curve, vein_of

#: Values of the tissue map.
OUTSIDE, GREY, WHITE, CSF, ARTERY, VEIN, BONE, SCALP = range(8)
#: (CBF mL/100 g/min, CBV mL/100 g, delay s) of grey and white matter: normal, penumbra, core.
PERFUSION = {
    GREY: ((55.0, 4.0, 0.0), (18.0, 3.5, 4.0), (6.0, 1.2, 6.0)),
    WHITE: ((24.0, 2.0, 0.0), (10.0, 1.9, 4.0), (3.0, 0.6, 6.0)),
}
BASELINE_HU = {OUTSIDE: -1000.0, GREY: 37.0, WHITE: 29.0, CSF: 8.0, ARTERY: 40.0, VEIN: 45.0, BONE: 900.0, SCALP: 20.0}


@dataclass(frozen=True)
class StrokePhantom:
    """A stroke head with its truth.

    Attributes:
        frames: Volume (t, k, j, i), HU, float32, with frame_times_s.
        tissue: uint8 (k, j, i), values as the module's constants. brain: bool, grey and white matter.
        hypoperfused, core: bool (k, j, i), true lesions; the core is part of the hypoperfused tissue.
        truth: "cbf", "cbv", "mtt", "delay" float32 (k, j, i), 0 outside grey and white matter.
        artery_hu, vein_hu: (t,) true curves above the baseline.
    """

    frames: Volume
    tissue: np.ndarray
    brain: np.ndarray
    hypoperfused: np.ndarray
    core: np.ndarray
    truth: dict[str, np.ndarray]
    artery_hu: np.ndarray
    vein_hu: np.ndarray

    def volume_ml(self, mask: np.ndarray) -> float:
        """Volume of a mask on the phantom's grid in mL."""
        return float(mask.sum(axis=(1, 2)) @ self.frames.voxel_volumes_ml)


def stroke_phantom(
    shape_kji: tuple[int, int, int] = (16, 256, 256),
    spacing_mm: tuple[float, float, float] = (0.86, 0.86, 5.0),
    times_s: np.ndarray | None = None,
    noise_hu: float = 5.0,
    hypoperfused_ml: float = 210.7,
    core_ml: float = 50.5,
    artery: GammaVariate | None = None,
    partial_volume: float = 0.5,
    shape: str = "gamma",
    variation: float = 0.0,
    seed: int = 0,
) -> StrokePhantom:
    """Make the stroke head (section 8.4 of the perfusion notes): by default 45 frames at 1.5 s, gamma residue.

    Args:
        spacing_mm: (column, row, slice). hypoperfused_ml, core_ml: true volumes, met to a voxel's volume.
        partial_volume: share of its true height at which an artery is seen (veins are seen whole).
        variation: relative SD of a smooth random field that scales blood volume and flow alike.
    """
    rng = np.random.default_rng([seed, 1])
    times_s = np.arange(45) * 1.5 if times_s is None else np.asarray(times_s, float)
    artery = artery or GammaVariate(t0_s=10.0, peak_hu=220.0)
    x, y, z = _coordinates_mm(shape_kji, spacing_mm)
    tissue = _anatomy(x, y, z)
    matter = np.isin(tissue, (GREY, WHITE))
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    left = matter & (x > 4)
    hypo = _nearest_ml(_ellipsoid(x, y, z, (46, 2, 4), (38, 52, 40)), left, hypoperfused_ml / voxel_ml)
    core = _nearest_ml(_ellipsoid(x, y, z, (40, 0, 2), (22, 30, 26)), hypo, core_ml / voxel_ml)
    stage = hypo.astype(np.uint8) + core
    scale = _variation(shape_kji, spacing_mm, variation, rng)
    frames, truth = _frames(tissue, stage, scale, artery, partial_volume, times_s, shape)
    _add_noise(frames, noise_hu, seed)
    matrix = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    volume = Volume(frames, matrix, "HU", frame_times_s=times_s)
    curves = artery(times_s), vein_of(artery)(times_s)
    return StrokePhantom(volume, tissue, matter, hypo, core, truth, *curves)


def _coordinates_mm(shape_kji: tuple, spacing_mm: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x toward left, y toward posterior, z toward superior) of every voxel, mm from the middle; broadcastable."""
    k, j, i = (np.arange(n) - (n - 1) / 2 for n in shape_kji)
    return (i * spacing_mm[0])[None, None], (j * spacing_mm[1])[None, :, None], (k * spacing_mm[2])[:, None, None]


def _ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    """Normalised radius: below 1 inside."""
    return np.sqrt(sum(((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre, radii)))


def _anatomy(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """uint8 (k, j, i) tissue map: scalp, skull, folded cortex, deep grey matter, ventricles, four arteries, a sinus."""
    brain = _ellipsoid(x, y, z, (0, 0, -8), (66, 82, 62))
    angle = np.arctan2(y + 0 * x, x + 0 * y)
    ribbon = 0.80 + 0.06 * np.sin(16 * angle + z / 6) + 0.03 * np.sin(27 * angle - z / 4)
    tissue = np.full(brain.shape, OUTSIDE, np.uint8)
    tissue[_ellipsoid(x, y, z, (0, 0, -8), (77, 93, 74)) < 1] = SCALP
    tissue[_ellipsoid(x, y, z, (0, 0, -8), (73, 89, 69)) < 1] = BONE
    tissue[_ellipsoid(x, y, z, (0, 0, -8), (68, 84, 64)) < 1] = CSF
    tissue[brain < 1] = GREY
    tissue[brain < ribbon] = WHITE
    for side in (-1, 1):
        tissue[_ellipsoid(x, y, z, (side * 24, 2, -4), (9, 17, 15)) < 1] = GREY
        tissue[_ellipsoid(x, y, z, (side * 9, -2, 8), (6, 27, 13)) < 1] = CSF
        tissue[(abs(x - side * 30) < 1.7) & (abs(y + 14) < 1.7) & (abs(z + 20) < 8)] = ARTERY
        tissue[(abs(x - side * 3) < 1.7) & (abs(y + 40) < 1.7) & (abs(z + 14) < 14)] = ARTERY
    within_skull = _ellipsoid(x, y, z, (0, 0, -8), (68, 84, 64))
    tissue[(abs(x) < 3.2) & (y > 0) & (within_skull < 1) & (within_skull > 0.92) & (abs(z) < 34)] = VEIN
    return tissue


def _nearest_ml(radius: np.ndarray, allowed: np.ndarray, voxels: float) -> np.ndarray:
    """The given number of allowed voxels with the smallest radius."""
    count = min(int(round(voxels)), int(allowed.sum()))
    if count == 0:
        return np.zeros(allowed.shape, bool)
    limit = np.partition(radius[allowed], count - 1)[count - 1]
    return allowed & (radius <= limit)


def _variation(shape_kji: tuple, spacing_mm: tuple, relative_sd: float, rng: np.random.Generator) -> np.ndarray:
    """(k, j, i) smooth factor with mean 1; all ones for no variation."""
    if not relative_sd:
        return np.ones(shape_kji, np.float32)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape_kji), [12.0 / s for s in spacing_mm[::-1]])
    return np.maximum(1 + relative_sd * smooth / smooth.std(), 0.3).astype(np.float32)


def _frames(
    tissue: np.ndarray, stage: np.ndarray, scale: np.ndarray, artery: GammaVariate, partial: float, times_s, shape: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Noise-free frames (t, k, j, i) in HU and the truth."""
    baseline = np.array([BASELINE_HU[value] for value in range(8)], np.float32)[tissue]
    frames = np.repeat(baseline[None], len(times_s), axis=0)
    truth = {name: np.zeros(tissue.shape, np.float32) for name in ("cbf", "cbv", "mtt", "delay")}
    for matter, stages in PERFUSION.items():
        for number, (cbf, cbv, delay) in enumerate(stages):
            where = (tissue == matter) & (stage == number)
            mtt = 60 * cbv / cbf
            curve = tissue_curve(artery, times_s, cbv, mtt, delay, shape).astype(np.float32)
            frames[:, where] += curve[:, None] * scale[where]
            truth["cbf"][where], truth["cbv"][where] = cbf * scale[where], cbv * scale[where]
            truth["mtt"][where], truth["delay"][where] = mtt, delay
    frames[:, tissue == ARTERY] += (partial * artery(times_s)).astype(np.float32)[:, None]
    frames[:, tissue == VEIN] += vein_of(artery)(times_s).astype(np.float32)[:, None]
    return frames, truth
