"""The key numbers of a result, large: what a panel shows above all details. Plain Python; sizes follow its font."""

from __future__ import annotations

import html
from collections.abc import Sequence

#: At most this many numbers are large; the others stand in the table below.
MOST = 3
EMPTY = ("", "\u2013")


def headline(rows: Sequence[Sequence[str]]) -> str:
    """Rich text with the key numbers of a table of measurements side by side; empty for an empty table.

    Key numbers are those with an interval, at most :data:`MOST`, in their order; where none has one, the first.

    Args:
        rows: (measurement, value, unit, interval, note) as words, as in the table of measurements.
    """
    with_interval = [row for row in rows if row[3] not in EMPTY]
    chosen = with_interval[:MOST] or list(rows[:1])
    if not chosen:
        return ""
    return f"<table width='100%'><tr>{''.join(map(_cell, chosen))}</tr></table>"


def _cell(row: Sequence[str]) -> str:
    """One number: its name, the value with its unit in large type, its interval."""
    name, value, unit, interval = (html.escape(text) for text in row[:4])
    figure = f"<span style='font-size:x-large; font-weight:bold'>{value}&nbsp;{unit}</span>"
    numbers = any(map(str.isdigit, interval))  # else it says why there is none
    return f"<td>{'<br>'.join(filter(None, (name, figure, f'{interval}&nbsp;{unit}' if numbers else interval)))}</td>"
