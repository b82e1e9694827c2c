"""The benchmarks' page: what the rows found, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from Testing.benchmarks.goals import goals
from Testing.benchmarks.reasons import HALF, reason
from Testing.benchmarks.results import Comparison, Row, Sheet

COLUMNS = [
    "Task", "Contender", "Wall [s]", "Processor [s]", "Times ours, wall", "Times ours, processor", "Peak [GB]",
    "Added [GB]", "Of the roofline",
]  # fmt: skip
#: A ratio below this is told of: a peer was faster.
AT_LEAST = 1.0

HEAD = """# How fast it is, beside what one would use instead

`make benchmark` makes this page: ours and its peers in turn on one machine, medians over rounds. For research use only.

- *Times ours* is what a contender took over what ours (the first line of its task) took: above 1, ours is faster. On a
  machine with other work the ratio of processor times is the one to trust. One thread each unless a row says otherwise.
- *Peak* is the memory of the process with its imports and weights, *added* what the first run took on top of them.
- *Of the roofline* is the time that the machine's own ceilings allow (operations at the rate of its best convolution,
  or bytes at that of a copy, whichever is longer) over the processor's time of ours. A whole task is held to its
  network's operations alone: what else it does counts as loss.
- `-` where a thing is not counted: no ceiling can be named for a search or for importing packages.
"""


def markdown(rows: dict[str, Row], machine: dict[str, str]) -> str:
    """The whole page."""
    parts = [HEAD, _machine(machine), _verdict(rows), "## Ours and peers\n", _table(_compared(rows))]
    notes = [f"- {row.title}: {note}" for row in rows.values() for one in row.comparisons if (note := one.note)]
    parts += ["\n".join(notes) + "\n" if notes else ""]
    for row in rows.values():
        if row.sheet or row.notes:
            parts += [f"## {row.title}\n", _table(row.sheet) if row.sheet else "", "\n".join(row.notes) + "\n"]
    parts += _why(rows)
    parts += ["## Goals\n", _table(goals(rows)), "## When each row was measured\n", _table(_times(rows))]
    return "\n".join(part for part in parts if part.strip()).rstrip() + "\n"


def _machine(machine: dict[str, str]) -> str:
    return "\n".join(f"**{name}:** {value}  " for name, value in machine.items()) + "\n"


def _table(sheet: Sheet) -> str:
    lines = [sheet.columns, ["---"] * len(sheet.columns), *sheet.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"


def below(rows: dict[str, Row]) -> Iterator[tuple[str, str, float, float]]:
    """(task, peer, ratio by wall, ratio by processor) of every peer that was faster than ours by the processor."""
    for row in rows.values():
        for one in row.comparisons:
            for name in one.peers():
                wall, cpu = one.ratios(name)
                if cpu < AT_LEAST:
                    yield one.what, name, wall, cpu


def _verdict(rows: dict[str, Row]) -> str:
    ratios = [one.ratios(name)[1] for row in rows.values() for one in row.comparisons for name in one.peers()]
    if not ratios:
        return ""
    slow = [f"{name} at '{what}' ({cpu:.2f})" for what, name, _, cpu in below(rows)]
    if not slow:
        return (
            f"**All {len(ratios)} ratios to a peer are at least 1.0** by processor time, from {min(ratios):.2f} on.\n"
        )
    return f"**Of {len(ratios)} ratios to a peer {len(slow)} are below 1.0** by processor time: {'; '.join(slow)}.\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _compared(rows: dict[str, Row]) -> Sheet:
    """Every contender of every comparison."""
    ceilings = rows["roofline"].facts if "roofline" in rows else {}
    lines = []
    for row in rows.values():
        for one in row.comparisons:
            for number, (name, taken) in enumerate(one.taken.items()):
                wall, cpu = one.ratios(name)
                lines.append([
                    one.what if number == 0 else "", name, _number(taken.wall_s), _number(taken.cpu_s),
                    "" if number == 0 else f"{wall:.2f}", "" if number == 0 else f"{cpu:.2f}",
                    _number(taken.peak_gb), _number(taken.extra_gb), _fraction(one, ceilings) if number == 0 else "",
                ])  # fmt: skip
    return Sheet(COLUMNS, lines)


def fraction(one: Comparison, ceilings: dict) -> float | None:
    """Of the roofline, by the processor's seconds (those of one thread are the wall's on an idle machine)."""
    if one.work is None or not ceilings:
        return None
    least_s = max(
        one.work.operations / ceilings["peak"][one.work.precision], one.work.moved_bytes / ceilings["bandwidth"]
    )
    return least_s / one.ours.cpu_s


def _fraction(one: Comparison, ceilings: dict) -> str:
    """The fraction in words."""
    found = fraction(one, ceilings)
    if found is None:
        return "-"
    return f"{found:.2g} ({one.work.precision})" if one.work.operations else f"{found:.2g}"


def far_from_the_roofline(rows: dict[str, Row]) -> dict[str, float]:
    """Tasks and starters that reach less than half of the roofline, with the fraction that they reach."""
    facts = rows["roofline"].facts if "roofline" in rows else {}
    found = {one.what: fraction(one, facts) for row in rows.values() for one in row.comparisons}
    found |= facts.get("fractions", {})
    return {what: value for what, value in found.items() if value is not None and value < HALF}


def _why(rows: dict[str, Row]) -> list[str]:
    """The section of reasons; nothing where every row comes near enough."""
    far = far_from_the_roofline(rows)
    if not far:
        return []
    lines = [f"- {what} ({value:.2g}): {reason(what) or 'no reason is known.'}" for what, value in far.items()]
    return ["## Why less than half of the roofline\n", "\n".join(lines) + "\n"]


def _times(rows: dict[str, Row]) -> Sheet:
    lines = []
    for key, row in rows.items():
        rounds = {one.ours.rounds for one in row.comparisons}
        turns = "-" if not rounds else f"{min(rounds)} to {max(rounds)}" if len(rounds) > 1 else str(*rounds)
        lines.append([key, row.title, row.made, row.load, turns, "quick" if row.quick else "full"])
    load = "Processes that wanted a core, before and after (1 min)"
    return Sheet(["Row", "What", "Measured at", load, "Rounds", "Inputs"], lines)
