"""What the columns of tables mean: ``columns.csv`` (column, meaning) of the library and of a task, for tool tips."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

_COMMON = Path(__file__).parent / "Resources"
FILE = "columns.csv"


@cache
def column_meanings(resources: Path | None = None) -> dict[str, str]:
    """Column head (without its unit) -> what it means, in a sentence.

    Args:
        resources: folder of a task's resources, whose meanings come before those that all tasks share.
    """
    folders = [_COMMON] if resources is None else [_COMMON, resources]
    found = {}
    for path in (folder / FILE for folder in folders):
        if path.is_file():
            with open(path, encoding="utf-8", newline="") as file:
                found |= {row["column"]: row["meaning"] for row in csv.DictReader(file)}
    return found
