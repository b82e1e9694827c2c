"""Artery and vein as a reader sees them: curves, points and facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.result import Curve, CurvePlot, Landmark
from NeuraxisLib.volume import Volume
from StrokeCTPLib.arterial_input import ArterialInput, Vessel

if TYPE_CHECKING:
    from StrokeCTPLib.perfusion_maps import PerfusionMaps, Prepared
    from StrokeCTPLib.task import StrokeOptions

#: Names of the curves and points.
ARTERY, CORRECTED, VEIN, TISSUE = "Artery (AIF)", "Artery, corrected", "Vein (VOF)", "Mean tissue"


def vessel_plot(prepared: Prepared, arterial: ArterialInput) -> CurvePlot:
    """Contrast over time in artery, vein and tissue, HU above the baseline."""
    times = prepared.times_s
    curves = [(ARTERY, arterial.artery.curve_hu), (CORRECTED, arterial.curve_hu)]
    if arterial.vein is not None:
        curves.append((VEIN, arterial.vein.curve_hu))
    curves.append((TISSUE, prepared.curves.mean(0).cpu().numpy()))
    drawn = tuple(Curve(name, times, np.round(np.asarray(values, float), 3)) for name, values in curves)
    return CurvePlot("Contrast over time", ("Time", "s"), ("Contrast", "HU"), drawn)


def vessel_points(grid: Volume, arterial: ArterialInput, options: StrokeOptions) -> list[Landmark]:
    """Where artery and vein are, then what else may be the artery, best first.

    Args:
        grid: axial, the one the voxels count in.
    """
    factor = f"; its height times {arterial.factor:.2f} for partial volume"
    how = {True: "chosen by you", False: "found"}
    points = [_point(ARTERY, grid, arterial.artery, how[bool(options.artery)] + factor)]
    if arterial.vein is not None:
        points.append(_point(VEIN, grid, arterial.vein, how[bool(options.vein)]))
    others = [vessel for vessel in arterial.candidates if vessel is not arterial.artery]
    best = max((vessel.score for vessel in arterial.candidates), default=0.0)
    for number, vessel in enumerate(others, 1):
        share = float(vessel.score / best) if best > 0 else None
        points.append(_point(f"Artery candidate {number}", grid, vessel, "not used", share))
    return points


def _point(name: str, grid: Volume, vessel: Vessel, words: str, share: float | None = None) -> Landmark:
    """The voxel of a vessel nearest to its middle, in RAS mm; confidence is the share of the best candidate's score."""
    middle = vessel.voxels.mean(axis=0)
    k, j, i = vessel.voxels[np.square(vessel.voxels - middle).sum(axis=1).argmin()]
    place = grid.origins_ras[k] + j * grid.row_step_ras + i * grid.column_step_ras
    note = f"{words}; peak {vessel.peak_hu:.0f} HU at {vessel.time_to_peak_s:.1f} s, width {vessel.width_s:.1f} s"
    return Landmark(name, place, share, note)


def vessel_facts(maps: PerfusionMaps) -> dict:
    """Numbers about artery and vein for provenance."""
    arterial = maps.arterial
    facts = {
        "factor": arterial.factor,
        "factor_measured": arterial.factor_measured,
        "truncated": arterial.truncated,
        "artery": _facts(arterial.artery),
    }
    return facts if arterial.vein is None else {**facts, "vein": _facts(arterial.vein)}


def _facts(vessel: Vessel) -> dict:
    return {
        "voxels": len(vessel.voxels),
        "peak_hu": vessel.peak_hu,
        "time_to_peak_s": vessel.time_to_peak_s,
        "width_s": vessel.width_s,
    }
