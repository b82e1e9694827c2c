"""An acquisition made ready for maps: axial, without motion, smoothed, with its vessels; the last one is kept.

Motion and smoothing take most of the time. A process that stays alive therefore keeps the last study and the last maps,
so that another artery or another threshold is answered without repeating them. What is kept is found by the content
of the frames and the options that bear on it, never by a name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import AxisOrder, Volume
from StrokeCTPLib.arterial_input import ArterialInput, Vessel, find_arterial_input, vessel_at, with_vessels
from StrokeCTPLib.frames import Frames
from StrokeCTPLib.motion import Motion, correct_motion, has_moved
from StrokeCTPLib.perfusion_maps import PerfusionMaps, PerfusionOptions, Prepared, maps_of, prepare
from StrokeCTPLib.quality import FEWEST_FRAMES

if TYPE_CHECKING:
    from StrokeCTPLib.task import StrokeOptions

#: Larger studies are not kept: a waiting process should not hold the memory of a whole acquisition and more.
KEPT_BYTES = 1 << 30
#: More lost frames than this share are motion beyond repair.
MOST_LOST = 0.25
#: Voxels of the highest contrast by which a bolus is told that ends after the acquisition, and the frames at its end.
_BRIGHTEST, _LAST = 500, 3


@dataclass(frozen=True)
class Study:
    """A prepared acquisition.

    Attributes:
        key: of its content and of the options that bear on it.
        order: from the stored axes to the axial ones of everything else.
        grid: mean of all frames, int16 HU (k, j, i), axial.
        source: the same with the axes as they were stored: what results are laid over.
        prepared: curves and unsmoothed frames at regular times.
        motion: how the head moved; None if it was not measured.
        still: whether motion was looked for and none seen.
        left_out: frames (from 0) that no movement brings back.
    """

    key: str
    order: AxisOrder
    grid: Volume
    source: Volume
    prepared: Prepared
    motion: Motion | None
    still: bool
    left_out: tuple[int, ...]


# -- the study ------------------------------------------------------------------------------------------------


def study_of(frames: Frames, options: StrokeOptions, device: str, progress: Progress) -> Study:
    """Prepare frames, or take the study that is kept of the same frames and options.

    Raises:
        InputError: too few frames, no brain, no contrast, no baseline, motion beyond repair.
        GeometryError: slices that have their own times are not axial.
    """
    key = _key(frames, options, device)
    kept = _kept.study
    if kept is not None and kept.key == key:
        progress(1.0, "Using what was prepared")
        return kept
    _kept.clear()
    axial, order, own = _axial(frames)
    axial, motion, still = _without_motion(axial, options, device, own, progress.part(0.0, 0.55))
    axial, left_out = _without_lost(axial, motion)
    grid = Volume(_mean(axial.array), axial.ijk_to_ras, "HU", axial.slice_origins_ras, meta=frames.volume.meta)
    stored = np.ascontiguousarray(order.undo_array(grid.array))
    source = replace(frames.volume, array=stored, unit="HU", frame_times_s=None, meta=_harmless(frames.volume.meta))
    prepared = prepare(axial, None, engine_options(options), None, device, progress.part(0.55, 1.0))
    study = Study(key, order, grid, source, prepared, motion, still, left_out)
    if _bytes_of(study) <= KEPT_BYTES:
        _kept.study = study
    return study


def engine_options(options: StrokeOptions) -> PerfusionOptions:
    """The options of the chain."""
    return PerfusionOptions(
        smoothing_mm=options.smoothing_mm,
        edge_preserving=options.edge_preserving and options.smoothing_mm > 0,
        deconvolution=options.deconvolution,
        strength=options.strength,
        shape=options.residue,
        pooling_mm=options.pooling_mm,
        plain_rcbf=options.rcbf,
        tmax_s=options.late_s,
    )


def _axial(frames: Frames) -> tuple[Volume, AxisOrder, bool]:
    """The frames in axial order with the times of their slices, and whether their array may be written to.

    What is mapped from a file is copied if it is to be kept, so that the file is free; acquisitions too large for that
    are used, and corrected, where they are.
    """
    axial, order = replace(frames.volume, frame_times_s=_times(frames)).axial()
    array, small = axial.array, axial.array.nbytes <= KEPT_BYTES
    copied = not array.flags.c_contiguous or (small and isinstance(array, np.memmap))
    if copied:
        axial = replace(axial, array=np.array(array, order="C"))
    return axial, order, copied or not small


def _times(frames: Frames) -> np.ndarray:
    """(t,) where all slices of a frame share a time, else (t, k)."""
    shared = np.ptp(frames.times_s, axis=1).max() < 1e-6
    return frames.times_s[:, 0] if shared else frames.times_s


def _without_motion(
    axial: Volume, options: StrokeOptions, device: str, in_place: bool, progress: Progress
) -> tuple[Volume, Motion | None, bool]:
    """Frames brought to the place of the first ones, how they had moved, and whether they were seen not to."""
    progress(0.0, "Looking for motion")
    if options.motion == "off" or axial.slice_count < 3:
        return axial, None, False
    if options.motion == "auto" and not has_moved(axial.array, np.array(axial.spacing_mm)):
        return axial, None, True
    corrected, motion = correct_motion(axial, device=device, in_place=in_place, progress=progress)
    return corrected, motion, False


def _without_lost(axial: Volume, motion: Motion | None) -> tuple[Volume, tuple[int, ...]]:
    """The frames without those that no movement brings back; InputError if too few are left."""
    if motion is None or not motion.beyond_repair.any():
        return axial, ()
    lost, count = np.flatnonzero(motion.beyond_repair), len(motion.beyond_repair)
    if len(lost) > MOST_LOST * count or count - len(lost) < FEWEST_FRAMES:
        raise InputError(
            f"The head moved beyond repair in {len(lost)} of {count} frames; measure without motion correction only if "
            "the frames look right, or take another acquisition."
        )
    keep = ~motion.beyond_repair
    return replace(axial, array=axial.array[keep], frame_times_s=axial.frame_times_s[keep]), tuple(int(t) for t in lost)


def _harmless(meta: dict) -> dict:
    """Facts about the frames that hold for their mean; what was found and left out is told elsewhere."""
    return {name: fact for name, fact in meta.items() if name not in ("warnings", "notes", "dropped")}


def _mean(array: np.ndarray) -> np.ndarray:
    """int16 mean over time, slice by slice."""
    return np.stack([np.rint(array[:, k].mean(0, dtype=np.float32)) for k in range(array.shape[1])]).astype(np.int16)


# -- maps -----------------------------------------------------------------------------------------------------


def maps_for(study: Study, options: StrokeOptions, progress: Progress) -> PerfusionMaps:
    """Maps of a study for the artery and vein that the options name, or that are found.

    Raises:
        InputError: no artery was found; the acquisition ends before the bolus has passed; a chosen voxel is no vessel.
    """
    engine = engine_options(options)
    methods = (engine.deconvolution, engine.strength, engine.shape, engine.pooling_mm, options.artery, options.vein)
    key = (study.key, *methods)
    earlier = _kept.maps if _kept.maps_key == key else None
    if earlier is not None and (earlier.calibration.plain_rcbf, earlier.calibration.plain_tmax_s) == (
        engine.plain_rcbf,
        engine.tmax_s,
    ):
        progress(1.0, "Using the maps that are there")
        return earlier
    progress(0.0, "Finding the vessels")
    arterial = _arterial_input(study, options) if earlier is None else earlier.arterial
    maps = maps_of(study.prepared, arterial, engine, earlier, progress.part(0.1, 1.0))
    other = _artery_elsewhere(study, options, maps) if earlier is None and not options.artery else None
    if other is not None:
        del maps  # there may be no room for both
        maps = maps_of(study.prepared, other, engine, None, progress.part(0.5, 1.0))
    if _kept.study is study:
        _kept.maps_key, _kept.maps = key, maps
    return maps


def _arterial_input(study: Study, options: StrokeOptions, exclude: np.ndarray | None = None) -> ArterialInput:
    prepared = study.prepared
    chosen = {
        "artery": _chosen(study, options.artery_kji, "artery"),
        "vein": _chosen(study, options.vein_kji, "vein"),
    }
    try:
        found = find_arterial_input(prepared.scan, prepared.regions.inside, prepared.times_s, prepared.arrival, exclude)
    except InputError:
        _refuse_cut_off(prepared)
        if chosen["artery"] is None:
            raise
        found = with_vessels(chosen["artery"], chosen["vein"], (), prepared.times_s)
    if chosen["artery"] is None and found.artery.time_to_peak_s >= prepared.times_s[-_LAST]:
        _refuse_cut_off(prepared)
    if chosen["artery"] is None and chosen["vein"] is None:
        return found
    artery, vein = chosen["artery"] or found.artery, chosen["vein"] or found.vein
    return with_vessels(artery, vein, found.candidates, prepared.times_s)


def _chosen(study: Study, voxel: tuple[int, int, int] | None, what: str) -> Vessel | None:
    """The vessel at a voxel of the stored image; None if none was named."""
    if voxel is None:
        return None
    shape = study.source.array.shape
    if any(index >= size for index, size in zip(voxel, shape)):
        raise InputError(
            f"The voxel {voxel} of the {what} lies outside the image of {shape[0]} slices, {shape[1]} rows and "
            f"{shape[2]} columns; choose another."
        )
    mark = np.zeros(shape, bool)
    mark[voxel] = True
    (place,) = np.argwhere(study.order.apply_array(mark))
    vessel = vessel_at(study.prepared.scan, tuple(int(index) for index in place), study.prepared.times_s)
    if vessel.peak_hu <= 0 or not np.isfinite(vessel.curve_hu).all():
        raise InputError(f"No contrast passes at the voxel {voxel} chosen as {what}; choose another.")
    return vessel


def _refuse_cut_off(prepared: Prepared) -> None:
    """InputError if the brightest voxels are at their brightest when the acquisition ends."""
    peaks = prepared.scan.quick_peaks(prepared.regions.inside)
    place = np.argpartition(peaks.ravel(), -_BRIGHTEST)[-_BRIGHTEST:]
    curve = prepared.scan.curves(np.stack(np.unravel_index(place, peaks.shape), 1)).mean(0)
    if int(curve.argmax()) >= len(curve) - _LAST:
        raise InputError(
            "The acquisition ends while contrast is still rising, so only the start of the bolus was seen; load all "
            "frames."
        )


def _artery_elsewhere(study: Study, options: StrokeOptions, maps: PerfusionMaps) -> ArterialInput | None:
    """An artery outside late tissue, if the one of the maps lies within it and there is another."""
    from scipy import ndimage

    from StrokeCTPLib.lesions import find_lesions, rules_for

    late = find_lesions(maps, study.grid, rules_for(maps, "svd")).hypoperfused
    if not late.any():
        return None
    late = ndimage.binary_dilation(late, np.ones((1, 5, 5)))
    if late[tuple(maps.arterial.artery.voxels.T)].mean() < 0.5:
        return None
    try:
        return _arterial_input(study, options, exclude=late)
    except InputError:
        return None


# -- what is kept ---------------------------------------------------------------------------------------------


@dataclass
class _Kept:
    """The last study and its last maps."""

    study: Study | None = None
    maps_key: tuple = ()
    maps: PerfusionMaps | None = None

    def clear(self) -> None:
        """Forget both, before a new study needs the memory."""
        self.study, self.maps_key, self.maps = None, (), None


_kept = _Kept()


def _key(frames: Frames, options: StrokeOptions, device: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    volume = frames.volume
    for frame in volume.array:
        digest.update(np.ascontiguousarray(frame).data)
    for part in (frames.times_s, volume.ijk_to_ras, volume.origins_ras):
        digest.update(np.ascontiguousarray(part).data)
    bearing = (options.motion, options.smoothing_mm, options.edge_preserving, device, volume.array.dtype.str)
    digest.update(repr((volume.array.shape, bearing)).encode())
    return digest.hexdigest()


def _bytes_of(study: Study) -> int:
    curves = study.prepared.curves
    return study.prepared.scan.frames_hu.nbytes + curves.nelement() * curves.element_size()
