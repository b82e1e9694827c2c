"""The report of a batch: how it went, how the main measures are distributed, and which cases stand out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.atomic import atomic_write

if TYPE_CHECKING:
    from NeuraxisLib.batch import Batch

_TEMPLATE = Path(__file__).parent / "Resources" / "batch.html.jinja"
#: Measures that are shown: those that most cases have, in the order of the task.
_MEASURES_SHOWN = 8
#: Fewer values than this have no outliers.
_LEAST_FOR_OUTLIERS = 8
#: Values farther than this many quartile distances from the box stand out (Tukey's fences).
_FENCE = 1.5
_BINS = 20
_LISTED = 20


@dataclass(frozen=True)
class Distribution:
    """How one measure is distributed over the cases.

    Attributes:
        name: with its unit. count: cases that have it.
        least, lower, median, upper, most: the five numbers of a box plot.
        bars: (x, y, width, height) of the histogram in a box of 300 x 60.
        box: x of the five numbers in the same box.
        outliers: (case, value) beyond Tukey's fences, the farthest first.
    """

    name: str
    count: int
    least: float
    lower: float
    median: float
    upper: float
    most: float
    bars: list[tuple[float, float, float, float]]
    box: list[float]
    outliers: list[tuple[str, float]]


def write_report(batch: Batch, path: Path) -> str:
    """Write the page; a sentence if it cannot be made here. OutputError if it cannot be written."""
    try:
        template = _template()
    except ImportError:
        return f"{path.name} was not written, because the package jinja2 is missing; install it for reports."
    page = template.render(**_contents(batch))
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return ""


@cache
def _template() -> Any:
    """The page's template, compiled once."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value: f"{value:.3g}"
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _contents(batch: Batch) -> dict[str, Any]:
    done = [entry for entry in batch.entries if entry.status == "done"]
    failed = [entry for entry in batch.entries if entry.status == "failed"]
    reasons = Counter(entry.record.get("code", "") for entry in failed)
    warnings = Counter(warning for entry in done for warning in entry.record.get("warnings", ()))
    seconds = [entry.record["seconds"] for entry in done if entry.record.get("seconds")]
    return {
        "title": f"{batch.task.title}: {len(batch.entries)} cases",
        "done": len(done),
        "failed": [(entry.case.name, entry.record.get("code", ""), entry.record.get("error", "")) for entry in failed],
        "left": len(batch.entries) - len(done) - len(failed),
        "earlier": sum(entry.earlier for entry in batch.entries),
        "rate": batch.cases_per_hour,
        "median_seconds": float(np.median(seconds)) if seconds else None,
        "reasons": reasons.most_common(),
        "warnings": warnings.most_common(_LISTED),
        "distributions": distributions([(entry.case.name, entry.record.get("values", {})) for entry in done]),
        "fence": _FENCE,
        "stopped": str(batch.failure) if batch.failure else "",
        "notice": RESEARCH_USE_NOTICE,
        "version": __version__,
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    }


def distributions(cases: list[tuple[str, Mapping[str, float | None]]]) -> list[Distribution]:
    """The distribution of the measures that at least half of the cases have, without the ends of intervals."""
    columns: dict[str, list[tuple[str, float]]] = {}
    for name, values in cases:
        for column, value in values.items():
            if value is not None and not any(f", {end}" in column for end in ("low", "high")):
                columns.setdefault(column, []).append((name, float(value)))
    usual = [(column, found) for column, found in columns.items() if 2 * len(found) >= len(cases)]
    return [_distribution(column, found) for column, found in usual[:_MEASURES_SHOWN]]


def _distribution(name: str, found: list[tuple[str, float]]) -> Distribution:
    values = np.array([value for _, value in found])
    least, lower, median, upper, most = (float(x) for x in np.percentile(values, [0, 25, 50, 75, 100]))
    reach = _FENCE * (upper - lower)
    outliers = []
    if len(values) >= _LEAST_FOR_OUTLIERS:
        outliers = [(case, x) for case, x in found if x < lower - reach or x > upper + reach]
        outliers.sort(key=lambda outlier: -abs(outlier[1] - median))
    span = (most - least) or 1.0
    counts, edges = np.histogram(values, bins=_BINS, range=(least, least + span))
    highest = max(int(counts.max()), 1)
    bars = [
        (300 * (edge - least) / span, 60 - 60 * count / highest, 300 / _BINS - 1, 60 * count / highest)
        for edge, count in zip(edges, counts)
        if count
    ]
    box = [300 * (x - least) / span for x in (least, lower, median, upper, most)]
    numbers = (least, lower, median, upper, most)
    return Distribution(name, len(values), *numbers, [tuple(map(float, bar)) for bar in bars], box, outliers[:_LISTED])
