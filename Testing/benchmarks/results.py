"""What the benchmarks' rows give, and the JSON file that keeps it.

A row of the table is measured as one: it holds comparisons of ours with peers, and tables of its own. Rows are kept in
the file one by one, each with the time and the load of the machine it was measured under.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from NeuraxisLib.atomic import atomic_write
from Testing.benchmarks.turns import Taken


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        quick: small inputs and one round: shows that it runs, not how fast.
        rounds: of every comparison, after one that warms up.
        threads: of a contender.
        folder: for what is made on the way; removed afterwards.
        say: told what is being done.
    """

    quick: bool
    rounds: int
    threads: int
    folder: Path
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class Work:
    """What the machine has to do at least, for the roofline.

    Attributes:
        operations: 2 for a multiplication with its addition.
        moved_bytes: that go through memory.
        precision: of the operations.
    """

    operations: float = 0.0
    moved_bytes: float = 0.0
    precision: str = "float32"


@dataclass
class Comparison:
    """Contenders that did the same in turn; those whose name begins with "ours" are ours, the first is compared.

    Attributes:
        what: the task, with its size.
        taken: name -> what it took.
        work: for the roofline; None where none can be named, which ``note`` explains.
        note: what a reader should know.
    """

    what: str
    taken: dict[str, Taken]
    work: Work | None = None
    note: str = ""

    @property
    def ours(self) -> Taken:
        """Ours that is compared."""
        return next(iter(self.taken.values()))

    def peers(self) -> dict[str, Taken]:
        """The others."""
        return {name: one for name, one in self.taken.items() if not name.startswith("ours")}

    def ratios(self, name: str) -> tuple[float, float]:
        """How many times as long as ours a contender took: on the wall, and of the processor."""
        other = self.taken[name]
        return other.wall_s / self.ours.wall_s, other.cpu_s / self.ours.cpu_s


@dataclass
class Sheet:
    """A table of a row's own."""

    columns: list[str]
    rows: list[list[str]]


@dataclass
class Row:
    """What one row of the benchmark found.

    Attributes:
        title: for its heading.
        comparisons: with peers.
        sheet: a table of its own.
        facts: numbers for the table of goals.
        notes: sentences below.
        made, load: when and under which load it was measured; set by the table.
        quick: whether inputs were small.
    """

    title: str
    comparisons: list[Comparison] = field(default_factory=list)
    sheet: Sheet | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    made: str = ""
    load: str = ""
    quick: bool = False


def _row(data: dict[str, Any]) -> Row:
    compared = [
        Comparison(
            one["what"],
            {name: Taken(**taken) for name, taken in one["taken"].items()},
            Work(**one["work"]) if one["work"] else None,
            one["note"],
        )
        for one in data["comparisons"]
    ]
    sheet = Sheet(**data["sheet"]) if data["sheet"] else None
    return Row(**{**data, "comparisons": compared, "sheet": sheet})


def load(path: Path) -> dict[str, Row]:
    """Rows of the file, by key; none if there is no file."""
    if not path.is_file():
        return {}
    return {key: _row(data) for key, data in json.loads(path.read_text(encoding="utf-8"))["rows"].items()}


def save(path: Path, rows: dict[str, Row], machine: dict[str, str]) -> None:
    """Write the rows, each comparison with its ratios, for those who read no code."""
    made = {}
    for key, row in rows.items():
        made[key] = asdict(row)
    text = json.dumps({"machine": machine, "rows": made}, indent=1, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
