"""From scores of cases to numbers of methods: over all, by group and by volume band, and method against method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from Training.evaluation.agreement import VolumeAgreement
from Training.evaluation.bootstrap import mean_interval, published_interval
from Training.evaluation.calibration import Calibration
from Training.evaluation.overlap import Overlap
from Training.evaluation.rules import Rules, metrics
from Training.evaluation.scores import Score

#: Band of cases whose truth is empty.
NO_LESION = "no lesion"


@dataclass(frozen=True)
class Statistic:
    """A metric over cases.

    Attributes:
        n: cases that went into it.
        undefined: counted cases where the metric is not defined.
        mean, sd, median, q1, q3, least, most: of the n; sd with n - 1.
        low, high: 95 % interval of the mean.
    """

    n: int
    undefined: int
    mean: float
    sd: float
    median: float
    q1: float
    q3: float
    least: float
    most: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float], rules: Rules) -> Statistic:
        """Of numbers of which NaN means undefined; infinite ones make mean and interval infinite."""
        given = np.array(list(values), float)
        x = given[~np.isnan(given)]
        if not len(x):
            return cls(0, len(given), *[math.nan] * 9)
        interval = published_interval(x) if rules.published_interval else mean_interval(x, rules.seed)
        finite = bool(np.isfinite(x).all())
        q1, median, q3 = np.quantile(x, (0.25, 0.5, 0.75), method="linear" if finite else "nearest")
        return cls(
            n=len(x),
            undefined=len(given) - len(x),
            mean=float(x.mean()),
            sd=float(x.std(ddof=1)) if finite and len(x) > 1 else math.nan,
            median=float(median),
            q1=float(q1),
            q3=float(q3),
            least=float(x.min()),
            most=float(x.max()),
            low=interval[0],
            high=interval[1],
        )


@dataclass(frozen=True)
class Counts:
    """How many cases of a group are special, so that none goes missing in a mean.

    Attributes:
        cases: all.
        failed: without a result.
        misses: prediction empty, truth not (failed ones too).
        false_alarms: truth empty, prediction not.
        both_empty: truth and prediction empty, rightly so.
        left_out: left out of the means by legacy rules.
    """

    cases: int
    failed: int
    misses: int
    false_alarms: int
    both_empty: int
    left_out: int

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Counts:
        """Count the scores of one method."""
        return cls(
            cases=len(scores),
            failed=sum(s.failed for s in scores),
            misses=sum(s.emptiness == "prediction" for s in scores),
            false_alarms=sum(s.emptiness == "truth" for s in scores),
            both_empty=sum(s.emptiness == "both" and not s.failed for s in scores),
            left_out=sum(not s.counted for s in scores),
        )


@dataclass(frozen=True)
class Summary:
    """One method over one set of cases.

    Attributes:
        method: name.
        kind: ``"all"``, ``"group"`` or ``"band"``.
        group: name of the group or band; empty for all.
        counts: the special cases.
        statistics: metric key -> Statistic.
        volume: agreement of volumes.
        calibration: pooled over the voxels of all cases; None without probabilities.
        overlap: voxel counts of all counted cases added up; its Dice is the "micro" one.
    """

    method: str
    kind: str
    group: str
    counts: Counts
    statistics: dict[str, Statistic]
    volume: VolumeAgreement
    calibration: Calibration | None = None
    overlap: Overlap = field(default_factory=lambda: Overlap(0, 0, 0, 0))


@dataclass
class Evaluation:
    """Everything that was judged.

    Attributes:
        rules: by which.
        source: name of the store or folder of the truth.
        methods: name -> what is known of it, in the order given.
        scores: one per case and method.
        unjudged: case -> why it could not be judged for any method.
        notes: sentences that a reader has to see.
    """

    rules: Rules
    source: str
    methods: dict[str, dict]
    scores: list[Score] = field(default_factory=list)
    unjudged: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of(self, method: str) -> list[Score]:
        """The scores of a method, in the order of the cases."""
        return [s for s in self.scores if s.method == method]

    @property
    def cases(self) -> list[str]:
        """The judged cases."""
        return list(dict.fromkeys(s.case for s in self.scores))

    def summaries(self) -> list[Summary]:
        """All, by group (where there is more than one) and by volume band, each for every method."""
        bands = [NO_LESION, *band_names(self.rules)]
        groups = sorted({s.group for s in self.scores})
        kinds = [("all", [""], lambda s: "")]
        if len(groups) > 1:
            kinds.append(("group", groups, lambda s: s.group))
        kinds.append(("band", bands, lambda s: band_of(s.truth_ml, self.rules)))
        found = []
        for kind, names, name_of in kinds:
            for name in names:
                for method in self.methods:
                    scores = [s for s in self.of(method) if name_of(s) == name]
                    if scores:
                        found.append(summarise(method, kind, name, scores, self.rules))
        return found


def summarise(method: str, kind: str, group: str, scores: Sequence[Score], rules: Rules) -> Summary:
    """One method over the given cases."""
    counted = [s for s in scores if s.counted]
    statistics = {m.key: Statistic.of([s.values[m.key] for s in counted], rules) for m in metrics(rules)}
    if rules.by_slice:
        statistics |= _slice_statistics(counted, rules)
    pooled = None
    for s in counted:
        if s.calibration is not None:
            pooled = s.calibration if pooled is None else pooled + s.calibration
    volumes = np.array([[s.predicted_ml, s.truth_ml] for s in counted]).reshape(-1, 2)
    agreement = VolumeAgreement.of(volumes[:, 0], volumes[:, 1])
    overlap = sum((s.overlap for s in counted), Overlap(0, 0, 0, 0))
    return Summary(method, kind, group, Counts.of(scores), statistics, agreement, pooled, overlap)


def _slice_statistics(scores: Sequence[Score], rules: Rules) -> dict[str, Statistic]:
    """Overlap measures over the lesion slices of all cases."""
    measures = [overlap.measures(rules.epsilon, rules.dice_epsilon) for s in scores for overlap in s.slices.values()]
    return {key: Statistic.of([m[key] for m in measures], rules) for key in Overlap(0, 0, 0, 0).measures()}


def band_names(rules: Rules) -> list[str]:
    """Names of the volume bands, such as ``<5 mL``, ``5-30 mL`` ... ``>=60 mL``."""
    edges = [f"{edge:g}" for edge in rules.bands_ml]
    if not edges:
        return ["any volume"]
    between = [f"{low}-{high} mL" for low, high in itertools.pairwise(edges)]
    return [f"<{edges[0]} mL", *between, f">={edges[-1]} mL"]


def band_of(truth_ml: float, rules: Rules) -> str:
    """Band of a true volume; a volume on an edge belongs above it."""
    if truth_ml == 0:
        return NO_LESION
    return band_names(rules)[int(np.searchsorted(rules.bands_ml, truth_ml, side="right"))]


@dataclass(frozen=True)
class Difference:
    """One method against another on the same cases.

    Attributes:
        method, reference: names; positive differences mean that ``method`` has the higher number.
        metric: key.
        n: cases on which both are defined and counted.
        mean, low, high: difference and its 95 % interval.
        p: of Wilcoxon's signed-rank test, two-sided; NaN where all differences are zero or there are fewer than two.
    """

    method: str
    reference: str
    metric: str
    n: int
    mean: float
    low: float
    high: float
    p: float


def differences(evaluation: Evaluation, keys: Sequence[str]) -> list[Difference]:
    """Every method against the first, for some metrics, per case."""
    from scipy.stats import wilcoxon

    reference, *others = evaluation.methods
    found = []
    first = {s.case: s for s in evaluation.of(reference) if s.counted}
    for method in others:
        pairs = [(s, first[s.case]) for s in evaluation.of(method) if s.counted and s.case in first]
        for key in keys:
            d = np.array([a.values[key] - b.values[key] for a, b in pairs])
            d = d[np.isfinite(d)]
            mean, interval = (float(d.mean()), mean_interval(d, evaluation.rules.seed)) if len(d) else (
                math.nan, (math.nan, math.nan)
            )  # fmt: skip
            p = float(wilcoxon(d).pvalue) if len(d) > 1 and d.any() else math.nan
            found.append(Difference(method, reference, key, len(d), mean, *interval, p))
    return found
