"""Words of the panel: names to choose from, numberings in a line. No Slicer."""

from __future__ import annotations

from SpineDiscLabelLib.anatomy import FORMS, number_of
from SpineDiscLabelLib.panel_state import ChainState, OtherNumbering


def all_names() -> list[str]:
    """Every name that a disc can have, from above; those of unusual lumbar spines beside their neighbours."""
    names = dict.fromkeys(name for form in FORMS for name in form.names)
    return sorted(names, key=number_of)


def numbering_line(state: ChainState) -> str:
    """The numbering that is shown, in one line."""
    order = state.from_above()
    if not order:
        return ""
    ends = dict.fromkeys((order[0][1].name, order[-1][1].name))
    if any(point.said for point in state.points):
        return f"{' to '.join(ends)}, as you said"
    return f"{' to '.join(ends)}, {percent(state.probability)}{' (level not settled)' if state.relative else ''}"


def other_line(other: OtherNumbering) -> str:
    """Another numbering as the list shows it; what its title says of the lowest disc is in the names."""
    ends, title = dict.fromkeys((other.highest, other.lowest)), other.title.partition(", the lowest")[0]
    return f"{percent(other.probability)}  {' to '.join(ends)}: {title}"


def percent(probability: float) -> str:
    """A probability in whole percent, never rounded to certainty."""
    if probability > 0.99:
        return "over 99 %"
    return f"{probability:.0%}".replace("%", " %") if probability >= 0.01 else "below 1 %"
