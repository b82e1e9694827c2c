"""Published rules that mark core and penumbra by thresholds, for comparison with networks and with our own maps.

Most limits are shares of the display range of the maps they were made on (stroke and disc specification 1.10), so
that each rule belongs to those maps; on maps of another algorithm the same numbers mean something else. The rule of the
DEFUSE 3 trial has limits of another kind: a share of healthy tissue, and seconds (CT perfusion specification 2.10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError, check_choice
from StrokeCTPLib.colour_scales import STAVANGER_RANGES

BACKGROUND, PENUMBRA, CORE = 0, 1, 2


@dataclass(frozen=True)
class Limit:
    """One comparison: ``map`` is ``below`` or above a number.

    Attributes:
        map: which.
        number: percent of what ``of`` says, or for ``"values"`` a value in the unit of the map.
        of: ``"range"`` of the display, ``"healthy"`` tissue's median (where Tmax is below :data:`HEALTHY_TMAX_S`), or
            ``"values"``.
    """

    map: str
    number: float
    below: bool = True
    of: str = "range"


@dataclass(frozen=True)
class ThresholdRule:
    """A rule; a voxel must keep all limits of a part. A part without limits is not defined by the rule.

    Attributes:
        source: who published it.
        core, penumbra: their limits.
    """

    source: str
    core: tuple[Limit, ...] = ()
    penumbra: tuple[Limit, ...] = ()

    @property
    def maps(self) -> tuple[str, ...]:
        """The maps that the rule reads."""
        limits = (*self.core, *self.penumbra)
        reference = ["tmax"] if any(limit.of == "healthy" for limit in limits) else []
        return tuple(dict.fromkeys([*(limit.map for limit in limits), *reference]))

    @property
    def ranges(self) -> tuple[str, ...]:
        """The maps whose display range it needs."""
        return tuple(dict.fromkeys(limit.map for limit in (*self.core, *self.penumbra) if limit.of == "range"))


#: Name -> rule.
THRESHOLD_RULES: dict[str, ThresholdRule] = {
    "syngo": ThresholdRule("syngo.via, its defaults", (Limit("cbv", 20),), (Limit("cbf", 27),)),
    "bathla_2020": ThresholdRule("Bathla 2020", (Limit("cbf", 20),), (Limit("tmax", 50, below=False),)),
    "wintermark_2006": ThresholdRule("Wintermark 2006", (Limit("cbv", 33.3),)),
    "campbell_2011": ThresholdRule("Campbell 2011", (Limit("cbf", 15),)),
    "bivard_2014": ThresholdRule("Bivard 2014", (Limit("cbf", 17.5),), (Limit("ttp", 75, below=False),)),
    "murphy_2006": ThresholdRule(
        "Murphy 2006", (Limit("cbf", 13.3), Limit("cbv", 18.8)), (Limit("cbf", 25), Limit("cbv", 35.8))
    ),
    "defuse3": ThresholdRule(
        "DEFUSE 3: CBF below 30 % of healthy tissue, Tmax above 6 s",
        (Limit("cbf", 30, of="healthy"), Limit("tmax", 6.0, below=False, of="values")),
        (Limit("tmax", 6.0, below=False, of="values"),),
    ),
}
#: Tissue with an earlier Tmax is healthy, in rules that compare with it.
HEALTHY_TMAX_S = 4.0


def mark(
    rule: str,
    maps: Mapping[str, np.ndarray],
    brain: np.ndarray | None = None,
    ranges: Mapping[str, tuple[float, float]] = STAVANGER_RANGES,
) -> np.ndarray:
    """What a rule marks: uint8 BACKGROUND, PENUMBRA or CORE, in the shape of the maps.

    Where both parts of a rule hold, it is core.

    Args:
        rule: one of :data:`THRESHOLD_RULES`.
        maps: name -> values (mL/100 g/min, mL/100 g, s); NaN where there is none, which no rule marks.
        brain: where to mark; None marks wherever the maps have values.
        ranges: map -> lowest and highest value of the display that the shares are of.

    Raises:
        InputError: there is no such rule, or it reads a map that is missing, of another grid or without a range.
    """
    check_choice("threshold rule", rule, THRESHOLD_RULES)
    chosen = THRESHOLD_RULES[rule]
    missing = next((n for n in chosen.maps if n not in maps or (n in chosen.ranges and n not in ranges)), None)
    if missing:
        raise InputError(f"The rule '{rule}' needs the map {missing.upper()} and its range; give it or choose another.")
    shapes = {np.shape(maps[name]) for name in chosen.maps} | ({brain.shape} if brain is not None else set())
    if len(shapes) > 1:
        raise InputError("The perfusion maps and the brain mask lie on different grids; give maps of one series.")
    labels = np.zeros(shapes.pop(), np.uint8)
    for value, limits in ((PENUMBRA, chosen.penumbra), (CORE, chosen.core)):
        if limits:
            labels[np.logical_and.reduce([_keeps(limit, maps, ranges, brain) for limit in limits])] = value
    if brain is not None:
        labels[~brain.astype(bool)] = BACKGROUND
    return labels


def _keeps(
    limit: Limit,
    maps: Mapping[str, np.ndarray],
    ranges: Mapping[str, tuple[float, float]],
    brain: np.ndarray | None,
) -> np.ndarray:
    values = np.asarray(maps[limit.map])
    if limit.of == "values":
        bound = limit.number
    elif limit.of == "healthy":
        healthy = (np.asarray(maps["tmax"]) < HEALTHY_TMAX_S) & np.isfinite(values)
        healthy = healthy if brain is None else healthy & brain.astype(bool)
        bound = limit.number / 100 * float(np.median(values[healthy])) if healthy.any() else np.nan
    else:
        low, high = ranges[limit.map]
        bound = low + (high - low) * limit.number / 100
    return values < bound if limit.below else values > bound
