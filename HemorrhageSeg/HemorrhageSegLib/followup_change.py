"""Change of a volume between two scans, with its interval, and whether that is an expansion.

Both volumes come with an interval. Their errors are taken as independent of each other (two scans, read one by one);
the limits of difference and ratio are then recovered from those of the two volumes (MOVER: Zou and Donner, Stat Med
27:1693, 2008; for ratios Donner and Zou, Stat Methods Med Res 21:347, 2012). An error that both scans share, such as a
model that always draws too wide, cancels in part in truth, so the interval errs wide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, sqrt

#: What is said of an expansion, given the intervals.
CERTAIN, POSSIBLE, NO, UNKNOWN = "certain", "possible", "no", "not known"
INTERVAL_NOTE = (
    "The interval of a change is recovered from those of the two volumes as if the two scans erred independently of "
    "each other (MOVER; Zou and Donner 2008, Donner and Zou 2012)."
)
#: Growth of blood in the ventricles from which it counts as expansion (Yogendrakumar et al., Stroke 51:1120, 2020).
VENTRICULAR_ML = 1.0


@dataclass(frozen=True)
class Estimate:
    """A volume in mL with its (low, high) interval, or None where that is not known."""

    ml: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Rule:
    """A definition of hematoma expansion: growth of more than ``ml``, or of more than ``percent`` where given.

    Attributes:
        ml: limit in mL.
        percent: limit in percent of the earlier volume; None for none.
        source: who defined it.
    """

    ml: float
    percent: float | None
    source: str

    @property
    def words(self) -> str:
        """Such as ``"> 6 mL or > 33 %"``."""
        return f"> {self.ml:g} mL" + ("" if self.percent is None else f" or > {self.percent:g} %")


#: The definitions in use; the first is the one that is meant where none is named.
RULES = (
    Rule(6.0, 33.0, "Dowlatshahi et al., Neurology 76:1238, 2011; Brouwers et al., JAMA Neurol 71:158, 2014"),
    Rule(12.5, 33.0, "Anderson et al. (INTERACT), Lancet Neurol 7:391, 2008"),
)


@dataclass(frozen=True)
class Verdict:
    """Whether a rule is met.

    Attributes:
        rule: in words.
        measured: by the volumes as they were measured.
        given_intervals: CERTAIN, POSSIBLE, NO, or UNKNOWN where a volume has no interval.
        source: who defined the rule.
    """

    rule: str
    measured: bool
    given_intervals: str
    source: str


def change_ml(earlier: Estimate, later: Estimate) -> Estimate:
    """Later minus earlier volume."""
    difference = later.ml - earlier.ml
    if earlier.interval is None or later.interval is None:
        return Estimate(difference)
    (low1, high1), (low2, high2) = earlier.interval, later.interval
    down = sqrt((later.ml - low2) ** 2 + (high1 - earlier.ml) ** 2)
    up = sqrt((high2 - later.ml) ** 2 + (earlier.ml - low1) ** 2)
    return Estimate(difference, (difference - down, difference + up))


def change_percent(earlier: Estimate, later: Estimate) -> tuple[float | None, tuple[float, float] | None]:
    """(change in percent of the earlier volume, its interval).

    None without an earlier volume; the upper limit is infinite where the earlier volume may be nothing at all.
    """
    if earlier.ml <= 0:
        return None, None
    percent = 100 * (later.ml / earlier.ml - 1)
    if earlier.interval is None or later.interval is None:
        return percent, None
    low, high = ratio_interval(earlier, later)
    return percent, (100 * (low - 1), 100 * (high - 1))


def ratio_interval(earlier: Estimate, later: Estimate) -> tuple[float, float]:
    """(low, high) of later / earlier volume: the ratios r for which MOVER's interval of later - r * earlier holds 0."""
    (low1, high1), (low2, high2) = earlier.interval, later.interval
    product = earlier.ml * later.ml
    # Limits are the roots of a r^2 - 2 product r + c = 0, written so that a may be negative or 0.
    a, c = high1 * (2 * earlier.ml - high1), low2 * (2 * later.ml - low2)
    root = product + sqrt(max(product**2 - a * c, 0.0))
    low = c / root if root > 0 else 0.0
    a, c = low1 * (2 * earlier.ml - low1), high2 * (2 * later.ml - high2)
    high = (product + sqrt(max(product**2 - a * c, 0.0))) / a if a > 0 else inf
    return low, high


def verdicts(earlier: Estimate, later: Estimate, rules: Iterable[Rule] = RULES) -> list[Verdict]:
    """What each rule says. Where there was no blood before, percents say nothing, and growth in mL alone counts."""
    return [_verdict(earlier, later, rule) for rule in rules]


def _verdict(earlier: Estimate, later: Estimate, rule: Rule) -> Verdict:
    change = change_ml(earlier, later)
    percent, percents = change_percent(earlier, later)
    measured = change.ml > rule.ml
    lows, highs = [change.interval and change.interval[0] > rule.ml], [change.interval and change.interval[1] > rule.ml]
    if rule.percent is not None and percent is not None:
        measured = measured or percent > rule.percent
        lows.append(percents and percents[0] > rule.percent)
        highs.append(percents and percents[1] > rule.percent)
    given = UNKNOWN if change.interval is None else CERTAIN if any(lows) else POSSIBLE if any(highs) else NO
    return Verdict(rule.words, measured, given, rule.source)


def ventricular_verdict(earlier: Estimate, later: Estimate) -> Verdict:
    """Blood in the ventricles: new where there was none, or grown by at least :data:`VENTRICULAR_ML`."""
    change = change_ml(earlier, later)
    if earlier.ml <= 0:
        measured, low, high = later.ml > 0, (later.interval or (0, 0))[0] > 0, (later.interval or (0, 0))[1] > 0
    else:
        low, high = (limit >= VENTRICULAR_ML for limit in change.interval or (0.0, 0.0))
        measured = change.ml >= VENTRICULAR_ML
    given = UNKNOWN if change.interval is None else CERTAIN if low else POSSIBLE if high else NO
    words = f"Ventricles: new, or at least {VENTRICULAR_ML:g} mL more"
    return Verdict(words, bool(measured), given, "Yogendrakumar et al., Stroke 51:1120, 2020")
