"""From frames to perfusion maps: the whole chain in two families, deconvolution (bSVD) and model.

    baseline and arrival -> vessels -> smoothing -> deconvolution -> calibration on artery and noise -> model fit

Both families come side by side, as thresholds belong to an algorithm: 30 % CBF and Tmax of 6 s to bSVD, a delay of
3 s to the model. Slices are worked on in slabs, so that a whole-brain volume fits in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.arterial_input import ArterialInput, Contrast, find_arterial_input
from StrokeCTPLib.brain_mask import BrainRegions, find_brain
from StrokeCTPLib.calibration import FLOW_FACTOR, Calibration, calibrate, noise_of
from StrokeCTPLib.concentration import (
    K_H_OVER_DENSITY,
    Arrival,
    chunks,
    concentration,
    curves_of,
    find_arrival,
    largest,
    regular_times,
    to_regular,
)
from StrokeCTPLib.deconvolution import (
    BSVD_CUT,
    OSCILLATION_LIMIT,
    SSVD_CUT,
    TIKHONOV_LAMBDA,
    Peaks,
    circulant_operator,
    find_peaks,
    find_peaks_osvd,
    ssvd_operator,
)
from StrokeCTPLib.lesions import VESSEL_CBV
from StrokeCTPLib.model_fit import bolus_area, build_dictionary, fit, fit_pooled
from StrokeCTPLib.quality import Flag, find_flags, require_frames
from StrokeCTPLib.smoothing import edge_preserving, gaussian, voxel_pool

#: Digits kept of a map's values, where they are not two.
DECIMALS = {"cbv": 3}
#: Values of frames (t x voxels) in one slab.
SLAB = 30_000_000


@dataclass(frozen=True)
class PerfusionOptions:
    """How maps are computed.

    Attributes:
        smoothing_mm: SD of the in-plane Gaussian; 0 for none. edge_preserving: average neighbours with like time
            profiles instead.
        deconvolution: "bsvd", "osvd", "ssvd" or "tikhonov". strength: its cut, limit or lambda; None for the usual.
        shape: residue function of the model: "gamma", "exponential", "linear" or "box".
        pooling_mm: SD over which the model's likelihood is pooled; 0 for each voxel on its own.
        plain_rcbf, tmax_s: thresholds of the plain bSVD maps that calibrated ones stand for.
    """

    smoothing_mm: float = 2.15
    edge_preserving: bool = True
    deconvolution: str = "bsvd"
    strength: float | None = None
    shape: str = "gamma"
    pooling_mm: float = 0.0
    plain_rcbf: float = 0.30
    tmax_s: float = 6.0


@dataclass(frozen=True)
class PerfusionMaps:
    """Maps and what they rest on. Every map is float32 (k, j, i), 0 outside ``tissue``; units in
    :data:`~StrokeCTPLib.map_units.MAP_UNITS`.

    Attributes:
        svd: cbf, cbv, mtt, tmax, ttp by deconvolution. model: cbf, cbv, mtt, delay, tmax by the model fit, where tmax
            is delay + mtt / 2, the middle of a box-shaped residue.
        calibrated: cbf and tmax by the bSVD that tells core from penumbra best in this patient; its cbf in the scale of
            the plain one (normal tissue reads alike).
        calibration: its thresholds. tissue, inside: bool (k, j, i). times_s: (t,) regular times of the curves.
    """

    svd: dict[str, np.ndarray]
    model: dict[str, np.ndarray]
    calibrated: dict[str, np.ndarray]
    calibration: Calibration
    arrival: Arrival
    arterial: ArterialInput
    tissue: np.ndarray
    inside: np.ndarray
    times_s: np.ndarray
    noise_hu: float
    flags: list[Flag] = field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    """An acquisition ready for deconvolution; kept so that another artery costs no second preparation.

    Attributes:
        curves: float32 (n, t), smoothed HU above the baseline of the tissue's voxels at regular ``times_s``.
        scan: unsmoothed frames at regular times, for vessels. regions, arrival, noise_hu: as in PerfusionMaps.
        spacing_mm: (column, row, slice).
    """

    curves: torch.Tensor
    scan: Contrast
    regions: BrainRegions
    arrival: Arrival
    times_s: np.ndarray
    source_times_s: np.ndarray
    noise_hu: float
    spacing_mm: tuple[float, float, float]


def compute_maps(
    frames: Volume,
    times_s: np.ndarray | None = None,
    options: PerfusionOptions | None = None,
    regions: BrainRegions | None = None,
    arterial: ArterialInput | None = None,
    device: str = "cpu",
) -> PerfusionMaps:
    """Compute all maps of an axial perfusion acquisition.

    Args:
        frames: (t, k, j, i) in HU. times_s: (t,) s, or (t, k) where slices have their own; None for the volume's.
        regions: brain; None to find it. arterial: artery and vein (curves at regular times); None to find them.

    Raises:
        InputError: too few frames, times that do not ascend, no brain, no contrast, no artery.
    """
    options = options or PerfusionOptions()
    prepared = prepare(frames, times_s, options, regions, device)
    if arterial is None:
        arterial = find_arterial_input(prepared.scan, prepared.regions.inside, prepared.times_s, prepared.arrival)
    return maps_of(prepared, arterial, options)


def prepare(
    frames: Volume,
    times_s: np.ndarray | None = None,
    options: PerfusionOptions | None = None,
    regions: BrainRegions | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Prepared:
    """Check times, find brain, arrival and baseline, bring frames to regular times and smooth them."""
    options, progress = options or PerfusionOptions(), progress or Progress()
    times = frames.frame_times_s if times_s is None else times_s
    if frames.array.ndim != 4 or times is None or len(times) != len(frames.array):
        raise InputError("A perfusion series needs frames with one time each; give the times of all frames.")
    require_frames(times)
    regular = regular_times(times)
    progress(0.0, "Finding the brain")
    array = to_regular(torch.as_tensor(frames.array), times, regular).numpy()
    regions = regions or find_brain(array[:3].mean(0), frames.spacing_mm)
    mean = np.array([frame[regions.tissue].mean(dtype=np.float64) for frame in array])
    arrival = find_arrival(mean, regular)
    scan = Contrast(array, array[list(arrival.baseline_frames)].mean(0, dtype=np.float32))
    counts = regions.tissue.sum(axis=(1, 2))
    curves = torch.empty((int(counts.sum()), len(array)), device=device)
    for slab in _slabs(array.shape):
        progress(0.2 + 0.8 * slab.start / array.shape[1], "Smoothing")
        first = int(counts[: slab.start].sum())
        part = _smoothed(array[:, slab], regions.tissue[slab], arrival, options, frames.spacing_mm, device)
        curves[first : first + len(part)] = part
    return Prepared(
        curves, scan, regions, arrival, regular, np.asarray(times, float), noise_of(curves), frames.spacing_mm
    )


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices in groups of at most SLAB values."""
    step = max(1, SLAB // (shape[0] * shape[2] * shape[3]))
    return (slice(start, start + step) for start in range(0, shape[1], step))


def _smoothed(
    array: np.ndarray, tissue: np.ndarray, arrival: Arrival, options: PerfusionOptions, spacing_mm: tuple, device: str
) -> torch.Tensor:
    """Smoothed curves (n, t) of one slab's tissue."""
    mask = torch.as_tensor(tissue, device=device)
    if not tissue.any():
        return torch.zeros((0, len(array)), device=device)
    rows, columns = (slice(int(a.min()), int(a.max()) + 1) for a in np.nonzero(tissue)[1:])
    mask = mask[:, rows, columns]
    images = concentration(torch.as_tensor(array[:, :, rows, columns]).to(device), arrival)
    if options.edge_preserving:
        pixel = options.smoothing_mm / spacing_mm[0]
        images = edge_preserving(images, mask, 1.4 * pixel, 0.8 * pixel)
    elif options.smoothing_mm > 0:
        sigmas = (0.0, options.smoothing_mm / spacing_mm[1], options.smoothing_mm / spacing_mm[0])
        images = gaussian(images, mask, sigmas)
    return curves_of(images, mask)


def maps_of(
    prepared: Prepared,
    arterial: ArterialInput,
    options: PerfusionOptions | None = None,
    earlier: PerfusionMaps | None = None,
    progress: Progress | None = None,
) -> PerfusionMaps:
    """All maps for an artery: called again when the user has chosen another one.

    ``earlier`` are maps of the same artery by the same methods: then only what rests on the thresholds is new.
    """
    options, progress = options or PerfusionOptions(), progress or Progress()
    artery, times, tissue = arterial.curve_hu, prepared.times_s, prepared.regions.tissue
    step_s = float(times[1] - times[0])
    if earlier is None:
        progress(0.0, "Deconvolving")
        found = deconvolution_maps(prepared.curves, artery, times, prepared.arrival, options)
        svd = {name: _image(values, tissue, name) for name, values in found.items()}
        progress(0.3, "Fitting the model")
        fitted = model_maps(prepared, artery, options)
        model = {name: _image(values, tissue, name) for name, values in fitted.items()}
    else:
        svd, model = earlier.svd, earlier.model
    progress(0.8, "Calibrating")
    reference = _reference_flow(prepared, artery, step_s, svd, options)
    calibration = calibrate(artery, step_s, prepared.noise_hu, reference, options.plain_rcbf, options.tmax_s)
    peaks = find_peaks(prepared.curves, circulant_operator(artery, step_s, calibration.cut, oversampling=2))
    calibrated = {
        "cbf": peaks.height * (FLOW_FACTOR * calibration.flow_scale),
        "tmax": peaks.lag_s.clamp(min=0),
    }
    return PerfusionMaps(
        svd,
        model,
        {name: _image(values, tissue, name) for name, values in calibrated.items()},
        calibration=calibration,
        arrival=prepared.arrival,
        arterial=arterial,
        tissue=tissue,
        inside=prepared.regions.inside,
        times_s=times,
        noise_hu=prepared.noise_hu,
        flags=find_flags(prepared.source_times_s, prepared.arrival, arterial, prepared.noise_hu),
    )


def _reference_flow(
    prepared: Prepared, artery: np.ndarray, step_s: float, svd: dict[str, np.ndarray], options: PerfusionOptions
) -> float:
    """Median flow of normal tissue by the standard bSVD, whatever the maps' own deconvolution."""
    tissue = prepared.regions.tissue
    standard = torch.from_numpy(svd["cbf"][tissue])
    if (options.deconvolution, options.strength) != ("bsvd", None):
        peaks = find_peaks(prepared.curves, circulant_operator(artery, step_s))
        standard = peaks.height.cpu() * FLOW_FACTOR
    normal = standard[torch.from_numpy((svd["tmax"] < 4) & (svd["cbv"] < VESSEL_CBV))[torch.from_numpy(tissue)]]
    return float(normal.median()) if len(normal) else float(standard.median())


def deconvolution_maps(
    curves: torch.Tensor, artery: np.ndarray, times_s: np.ndarray, arrival: Arrival, options: PerfusionOptions
) -> dict[str, torch.Tensor]:
    """cbf, cbv, mtt, tmax, ttp (n,) of curves (n, t) at regular times.

    CBF = 6000 kH/rho max k; CBV = 100 kH/rho * area of tissue / area of artery; MTT = 60 CBV / CBF; Tmax where k has
    its maximum, 0 where that lies before the artery; TTP counts from arrival.
    """
    step_s = float(times_s[1] - times_s[0])
    peaks = _deconvolved(curves, artery, step_s, options)
    cbf = (peaks.height * FLOW_FACTOR).clamp(min=0)
    area = bolus_area(torch.as_tensor(artery)[None], times_s).item()
    cbv = (bolus_area(curves, times_s) * (100 * K_H_OVER_DENSITY / area)).clamp(min=0)
    mtt = torch.where(cbf > 0.5, 60 * cbv / cbf.clamp(min=0.5), torch.zeros_like(cbf)).clamp(max=60)
    top = torch.cat([_highest_frame(part) for part in chunks(curves, curves.shape[1])]) if len(curves) else cbf
    ttp = (times_s[0] + top * step_s - arrival.time_s).clamp(min=0).to(cbf)
    return {"cbf": cbf, "cbv": cbv, "mtt": mtt, "tmax": peaks.lag_s.clamp(min=0), "ttp": ttp}


def _highest_frame(curves: torch.Tensor) -> torch.Tensor:
    """(n,) frame at which curves (n, t), smoothed over time as by :func:`smoothing.temporal`, are highest."""
    smooth = 2 * curves  # four times the weights 1/4, 1/2, 1/4
    smooth[:, 1:] += curves[:, :-1]
    smooth[:, :-1] += curves[:, 1:]
    smooth[:, 0] += curves[:, 0]
    smooth[:, -1] += curves[:, -1]
    return largest(smooth)[1]


def _deconvolved(curves: torch.Tensor, artery: np.ndarray, step_s: float, options: PerfusionOptions) -> Peaks:
    """Peaks by the chosen method."""
    strength = options.strength
    if options.deconvolution == "bsvd":
        return find_peaks(curves, circulant_operator(artery, step_s, strength or BSVD_CUT))
    if options.deconvolution == "osvd":
        return find_peaks_osvd(curves, artery, step_s, strength or OSCILLATION_LIMIT)
    if options.deconvolution == "ssvd":
        return find_peaks(curves, ssvd_operator(artery, step_s, strength or SSVD_CUT))
    if options.deconvolution == "tikhonov":
        return find_peaks(curves, circulant_operator(artery, step_s, tikhonov=strength or TIKHONOV_LAMBDA))
    raise InputError(f"No deconvolution is called {options.deconvolution!r}; choose bsvd, osvd, ssvd or tikhonov.")


def model_maps(prepared: Prepared, artery: np.ndarray, options: PerfusionOptions) -> dict[str, torch.Tensor]:
    """cbf, cbv, mtt, delay, tmax (n,) by the model fit."""
    dictionary = build_dictionary(artery, prepared.times_s, options.shape)
    if options.pooling_mm > 0:
        sigmas = (0.0, options.pooling_mm / prepared.spacing_mm[1], options.pooling_mm / prepared.spacing_mm[0])
        mask = torch.as_tensor(prepared.regions.tissue, device=prepared.curves.device)
        found = fit_pooled(prepared.curves, dictionary, voxel_pool(mask, sigmas))
    else:
        found = fit(prepared.curves, dictionary)
    cbf, delay = 60 * found.cbv / found.mtt_s, found.delay_s
    tmax = (delay + found.mtt_s / 2).clamp(min=0)
    return {"cbf": cbf, "cbv": found.cbv, "mtt": found.mtt_s, "delay": delay, "tmax": tmax}


def _image(values: torch.Tensor, tissue: np.ndarray, name: str) -> np.ndarray:
    """Values (n,) of the tissue's voxels as an image, in the steps that are worth keeping.

    Finer digits are noise, which files do not compress; and what is drawn on the maps is then drawn alike on the files.
    """
    image = np.zeros(tissue.shape, np.float32)
    image[tissue] = np.round(values.cpu().numpy(), DECIMALS.get(name, 2))
    return image
