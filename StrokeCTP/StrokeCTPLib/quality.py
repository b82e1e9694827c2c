"""What a reader should know of a perfusion acquisition before trusting its maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError
from StrokeCTPLib.arterial_input import FACTOR_EXPECTED, ArterialInput
from StrokeCTPLib.concentration import LEAST_BASELINE_FRAMES, Arrival
from StrokeCTPLib.motion import FLAGGED_MM, Motion

#: Fewer frames cannot be deconvolved; shorter, sparser or noisier acquisitions are flagged.
FEWEST_FRAMES, SHORT_S, SPARSE_S, NOISY_HU, WEAK_ARTERY_HU = 15, 60.0, 4.0, 1.0, 50.0


@dataclass(frozen=True)
class Flag:
    """A remark on the acquisition: ``code`` for programs, ``text`` one sentence for people."""

    code: str
    text: str


def require_frames(times_s: np.ndarray) -> None:
    """Raise InputError unless there are enough frames at ascending times (t,) or (t, k)."""
    times = np.asarray(times_s, float)
    if len(times) < FEWEST_FRAMES:
        raise InputError(
            f"The perfusion series has {len(times)} frames and at least {FEWEST_FRAMES} are needed; load all of them."
        )
    if not np.isfinite(times).all() or not (np.diff(times, axis=0) > 0).all():
        raise InputError("The frame times do not ascend; sort the frames or give the true times.")


def find_flags(times_s: np.ndarray, arrival: Arrival, arterial: ArterialInput, noise_hu: float) -> list[Flag]:
    """Flags of timing, baseline, bolus, vessels and noise; ``noise_hu`` is that of the smoothed tissue curves."""
    times = np.asarray(times_s, float).reshape(len(times_s), -1).mean(1)
    length, gap = float(times[-1] - times[0]), float(np.diff(times).max())
    low, high = FACTOR_EXPECTED
    peak = float(arterial.curve_hu.max())
    checks = [
        (
            arterial.truncated,
            "truncated",
            "The bolus has not passed when the acquisition ends: CBV by deconvolution is too low; read the model's.",
        ),
        (length < SHORT_S, "short", f"The acquisition lasts {length:.0f} s; under 60 s late tissue is cut off."),
        (gap > SPARSE_S, "sparse", f"Frames are up to {gap:.1f} s apart; values are less certain."),
        (
            len(arrival.baseline_frames) < LEAST_BASELINE_FRAMES,
            "baseline",
            f"Only {len(arrival.baseline_frames)} frames precede the contrast; all values rest on them.",
        ),
        (arterial.vein is None, "no-vein", "No vein was found, so the artery's partial volume is not corrected."),
        (
            arterial.vein is not None and not low <= arterial.factor_measured <= high,
            "partial-volume",
            f"The vein's area is {arterial.factor_measured:.1f} times the artery's; look at both vessels.",
        ),
        (peak < WEAK_ARTERY_HU, "weak-bolus", f"The arterial peak is {peak:.0f} HU; values are noisy."),
        (noise_hu > NOISY_HU, "noise", f"The smoothed curves have a noise of {noise_hu:.1f} HU; core is uncertain."),
    ]
    return [Flag(code, text) for found, code, text in checks if found]


def motion_flags(motion: Motion, own_times: bool = False) -> list[Flag]:
    """Flags of frames that moved by more than 3 mm, and of such that no correction brings back.

    ``own_times`` says that the slices of a frame were taken at different times, as by a shuttling table: the head may
    have moved between them, but is corrected as a whole.
    """
    flags = []
    lost, far = int(motion.beyond_repair.sum()), ~motion.beyond_repair & (motion.displacement_mm > FLAGGED_MM)
    if far.any():
        most = float(motion.displacement_mm[far].max())
        flags.append(Flag("motion", f"The head moved by up to {most:.0f} mm in {int(far.sum())} frames; look at them."))
    if lost:
        flags.append(Flag("beyond-repair", f"{lost} frames fit the others by no movement; leave them out."))
    if own_times and motion.corrected.any():
        words = "The slices of a frame have their own times, but motion was corrected frame by frame; compare them."
        flags.append(Flag("motion-slices", words))
    return flags
