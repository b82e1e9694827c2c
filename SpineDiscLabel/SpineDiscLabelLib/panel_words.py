"""Words of the panel: names to choose from, numberings in a line. No Slicer."""

from __future__ import annotations

from NeuraxisLib.translation import translator
from SpineDiscLabelLib.anatomy import FORMS, number_of
from SpineDiscLabelLib.panel_state import ChainState, OtherNumbering

_ = translator(__name__)


def all_names() -> list[str]:
    """Every name that a disc can have, from above; those of unusual lumbar spines beside their neighbours."""
    names = dict.fromkeys(name for form in FORMS for name in form.names)
    return sorted(names, key=number_of)


def numbering_line(state: ChainState) -> str:
    """The numbering that is shown, in one line."""
    order = state.from_above()
    if not order:
        return ""
    ends = span(order[0][1].name, order[-1][1].name)
    if any(point.said for point in state.points):
        return _("{ends}, as you said").format(ends=ends)
    words = _("{ends}, {percent} (level not settled)") if state.relative else "{ends}, {percent}"
    return words.format(ends=ends, percent=percent(state.probability))


def span(highest: str, lowest: str) -> str:
    """The discs from one to another."""
    return highest if highest == lowest else _("{highest} to {lowest}").format(highest=highest, lowest=lowest)


def other_line(other: OtherNumbering) -> str:
    """Another numbering as the list shows it; what its title says of the lowest disc is in the names."""
    title = other.title.partition(", the lowest")[0]
    return f"{percent(other.probability)}  {span(other.highest, other.lowest)}: {title}"


def percent(probability: float) -> str:
    """A probability in whole percent, never rounded to certainty."""
    if probability > 0.99:
        return _("over 99 %")
    return f"{probability:.0%}".replace("%", " %") if probability >= 0.01 else _("below 1 %")
