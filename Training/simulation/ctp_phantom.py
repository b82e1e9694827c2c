"""Digital phantoms of CT perfusion with exact truth: a tile phantom after Kudo 2013, and a stroke head.

Tissue is C(t) = (rho / kH) * CBF / 6000 * (AIF convolved with R)(t - delay), in HU, with CBF in mL/100 g/min; arterial
curves are gamma-variates. Convolutions are done on a grid of 20 ms with the exact integral of the residue function, so
that areas (CBV) hold whatever the sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gamma as gamma_function
from scipy.special import gammainc

#: Tissue density in g/mL, and (1 - haematocrit) of large over small vessels.
DENSITY, HAEMATOCRIT_RATIO = 1.05, (1 - 0.45) / (1 - 0.25)
#: Columns (mean transit time) and rows (delay) of the tile phantom, in s.
TILE_MTT_S = (24.0, 12.0, 8.0, 6.0, 4.8, 4.0, 24.0 / 7)
TILE_DELAY_S = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
SHAPES = ("exponential", "linear", "box", "gamma")
_FINE_S = 0.02


@dataclass(frozen=True)
class GammaVariate:
    """A bolus: peak * (x / (a b))^a * exp(a - x / b) with x = t - t0 (s), zero before t0; HU above the baseline."""

    t0_s: float = 12.0
    alpha: float = 3.0
    beta_s: float = 1.5
    peak_hu: float = 464.0

    def __call__(self, times_s: np.ndarray) -> np.ndarray:
        """HU above the baseline at the given times (any shape)."""
        x = np.maximum(np.asarray(times_s, float) - self.t0_s, 0)
        return self.peak_hu * (x / (self.alpha * self.beta_s)) ** self.alpha * np.exp(self.alpha - x / self.beta_s)

    @property
    def area_hu_s(self) -> float:
        """Integral over all times."""
        shape = self.beta_s * gamma_function(self.alpha + 1) * (np.e / self.alpha) ** self.alpha
        return float(self.peak_hu * shape)


def vein_of(artery: GammaVariate, later_s: float = 2.0, widening: float = 2.24) -> GammaVariate:
    """A venous bolus with exactly the artery's area (Stewart-Hamilton), later, wider and lower."""
    beta_s = artery.beta_s * widening
    return GammaVariate(artery.t0_s + later_s, artery.alpha, beta_s, artery.peak_hu / widening)


def residue_integral(shape: str, mtt_s: float, times_s: np.ndarray) -> np.ndarray:
    """Integral of the residue function from 0 to t in s (0 before t = 0); tends to MTT.

    ``shape``: "exponential" exp(-t/MTT); "linear" 1 - t/(2 MTT) up to 2 MTT; "box" 1 up to MTT; "gamma" one minus the
    distribution function of a gamma-distributed transit time of shape 3.
    """
    t = np.maximum(np.asarray(times_s, float), 0)
    if shape == "exponential":
        return mtt_s * -np.expm1(-t / mtt_s)
    if shape == "linear":
        t = np.minimum(t, 2 * mtt_s)
        return t - t**2 / (4 * mtt_s)
    if shape == "box":
        return np.minimum(t, mtt_s)
    if shape != "gamma":
        raise ValueError(f"No residue function is called {shape!r}; choose one of {', '.join(SHAPES)}.")
    k, x = 3.0, 3.0 * t / mtt_s
    return t * (1 - gammainc(k, x)) + mtt_s * gammainc(k + 1, x)


def tissue_curve(
    artery: GammaVariate, times_s: np.ndarray, cbv: float, mtt_s: float, delay_s: float, shape: str = "gamma"
) -> np.ndarray:
    """HU above the baseline of tissue with CBV in mL/100 g, MTT and delay in s, at any sample times (T,)."""
    end_s = float(np.max(times_s)) + abs(delay_s) + 1.0
    fine_s = np.arange(0.0, end_s, _FINE_S)
    edges_s = np.concatenate([[0.0], fine_s + _FINE_S / 2])
    weights = np.diff(residue_integral(shape, mtt_s, edges_s))
    length = 2 * len(fine_s)
    product = np.fft.rfft(artery(fine_s), length) * np.fft.rfft(weights, length)
    convolved = np.fft.irfft(product, length)[: len(fine_s)]
    flow = cbv / mtt_s / 100.0
    return DENSITY / HAEMATOCRIT_RATIO * flow * np.interp(np.asarray(times_s) - delay_s, fine_s, convolved)


@dataclass(frozen=True)
class TilePhantom:
    """The tile phantom: frames and per-voxel truth.

    Attributes:
        frames_hu: float32 (t, k, j, i); slice 0 holds the artery and the vein, then five slices (CBV 1 to 5) per shape.
        times_s: (t,). artery_hu, vein_hu: (t,) true curves above the baseline. shapes: of the slices 1-5, 6-10, ...
        artery_roi, vein_roi: bool (j, i) on slice 0. tissue: bool (k, j, i), the tiles.
        truth: "cbf" mL/100 g/min, "cbv" mL/100 g, "mtt", "delay", "tmax" s, each float32 (k, j, i); 0 outside tiles.
            Tmax is delay + MTT / 2 for the box (as the field evaluates it), and the delay for the other shapes.
        tile_px: side of a tile.
    """

    frames_hu: np.ndarray
    times_s: np.ndarray
    artery_hu: np.ndarray
    vein_hu: np.ndarray
    shapes: tuple[str, ...]
    artery_roi: np.ndarray
    vein_roi: np.ndarray
    tissue: np.ndarray
    truth: dict[str, np.ndarray]
    tile_px: int

    @property
    def tile_interiors(self) -> np.ndarray:
        """bool (k, j, i): tiles without 2 px at every border (the published rule of evaluation)."""
        margin = (self.tissue.shape[-1] - 7 * self.tile_px) // 2
        inside = np.arange(self.tissue.shape[-1]) - margin
        keep = (inside % self.tile_px >= 2) & (inside % self.tile_px < self.tile_px - 2)
        return self.tissue & keep[:, None] & keep

    def slices_of(self, shape: str) -> slice:
        """The five slices of a residue shape."""
        start = 1 + 5 * self.shapes.index(shape)
        return slice(start, start + 5)


def tile_phantom(
    shapes: tuple[str, ...] = ("exponential", "linear", "box"),
    tile_px: int = 32,
    margin_px: int = 0,
    noise_hu: float = 9.0,
    times_s: np.ndarray | None = None,
    artery: GammaVariate | None = None,
    partial_volume: float = 0.485,
    seed: int = 0,
) -> TilePhantom:
    """Make the tile phantom after Kudo et al., Radiology 2013;267:201 (section 3.1 of the perfusion notes).

    7 x 7 tiles: rows are delays of 0 to 3 s, columns mean transit times of 24 to 3.43 s. ``tile_px=32`` and
    ``margin_px=144`` give the published 512 x 512 slices with artery and vein where they are there; the default leaves
    the empty margin out. The artery is seen at a ``partial_volume`` of its true height; the vein is seen whole.
    """
    times_s = np.arange(30) * 2.0 if times_s is None else np.asarray(times_s, float)
    artery = artery or GammaVariate()
    vein = vein_of(artery)
    side = 7 * tile_px + 2 * margin_px
    count = 1 + 5 * len(shapes)
    frames = np.full((len(times_s), count, side, side), 40.0, np.float32)
    names = ("cbf", "cbv", "mtt", "delay", "tmax")
    truth = {name: np.zeros((count, side, side), np.float32) for name in names}
    tissue = np.zeros((count, side, side), bool)
    rois = [_roi(side, at, size, tile_px) for at, size in (((123, 251), 8), ((410, 247), 16))]
    frames[:, 0, rois[0]] += (partial_volume * artery(times_s))[:, None]
    frames[:, 0, rois[1]] += vein(times_s)[:, None]
    for s, shape in enumerate(shapes):
        for row, delay in enumerate(TILE_DELAY_S):
            for column, mtt in enumerate(TILE_MTT_S):
                j, i = margin_px + row * tile_px, margin_px + column * tile_px
                curve = tissue_curve(artery, times_s, 1.0, mtt, delay, shape)
                for cbv in range(1, 6):
                    place = (5 * s + cbv, slice(j, j + tile_px), slice(i, i + tile_px))
                    frames[(slice(None), *place)] += (cbv * curve)[:, None, None]
                    tissue[place] = True
                    values = (60 * cbv / mtt, cbv, mtt, delay, delay + mtt / 2 if shape == "box" else delay)
                    for name, value in zip(names, values):
                        truth[name][place] = value
    _add_noise(frames, noise_hu, seed)
    return TilePhantom(frames, times_s, artery(times_s), vein(times_s), shapes, *rois, tissue, truth, tile_px)


def _roi(side: int, corner_of_512: tuple[int, int], size_px: int, tile_px: int) -> np.ndarray:
    """bool (j, i): a square whose place scales with the slice; never larger than a tile of the published size."""
    size = max(3, round(size_px * tile_px / 32))
    j, i = (round(at * side / 512) for at in corner_of_512)
    roi = np.zeros((side, side), bool)
    roi[j : j + size, i : i + size] = True
    return roi


def _add_noise(frames: np.ndarray, noise_hu: float, seed: int) -> None:
    """Add white noise in place, frame by frame."""
    rng = np.random.default_rng(seed)
    for frame in frames:
        if noise_hu:
            frame += noise_hu * rng.standard_normal(frame.shape, dtype=np.float32)
