"""The tables of a batch: cases.csv, cases.parquet and report.html, each written whole or not at all."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import NeuraxisError, OutputError
from NeuraxisLib.process import as_user_error
from NeuraxisLib.result_text import csv_cell

if TYPE_CHECKING:
    from NeuraxisLib.batch import Batch

CSV_FILE, PARQUET_FILE, REPORT_FILE = TABLES = "cases.csv", "cases.parquet", "report.html"
#: They are brought up to date this often while cases run ...
EVERY_S = 60.0
#: ... and seldom enough that writing them takes no more than a hundredth of the time.
SHARE = 100
#: Columns before and after those of the measurements, with the type that Parquet gives them.
_BEFORE = {"case": str, "status": str, "error_code": str, "error": str}
_AFTER = {
    "warnings": str, "series_chosen": str, "result_folder": str, "model": str, "neuraxis_version": str,
    "attempts": int, "seconds": float, "finished": str,
}  # fmt: skip


class Tables:
    """The tables of a batch, written in a thread, so that a panel with 10,000 cases stays alive meanwhile.

    Args:
        batch: its entries are read once, when writing begins.
        place: where they go (see :mod:`NeuraxisLib.batch_place`).

    Attributes:
        notes: sentences about what could not be written.
    """

    def __init__(self, batch: Batch, place: Any):
        self.notes: list[str] = []
        self._batch, self._place = batch, place
        self._thread: threading.Thread | None = None
        self._ended_at, self._seconds = time.monotonic(), 0.0

    def keep_up(self) -> None:
        """Write them now and then; call it often."""
        if self.has_ended() and time.monotonic() - self._ended_at > max(EVERY_S, SHARE * self._seconds):
            self.begin()

    def begin(self, report: bool = False) -> None:
        """Begin to write cases.csv, cases.parquet and, if asked, report.html, after those under way."""
        self.has_ended(None)
        self._thread = threading.Thread(target=self._write, args=(report,), daemon=True)
        self._thread.start()

    def has_ended(self, patience_s: float | None = 0.0) -> bool:
        """Whether nothing is being written any more; waits up to ``patience_s`` for it, or as long as it takes."""
        if self._thread is not None:
            self._thread.join(patience_s)
            if self._thread.is_alive():
                return False
            self._thread = None
            try:
                self._place.publish(TABLES)
            except OutputError as error:
                self.notes.append(str(error))
            self._ended_at = time.monotonic()
        return True

    def _write(self, report: bool) -> None:
        begun = time.monotonic()
        try:
            self.notes = write_tables(self._batch, self._place.desk, report)
        except Exception as error:
            self.notes = [str(as_user_error(error))]
        self._seconds = time.monotonic() - begun


def write_tables(batch: Batch, folder: Path, report: bool = False) -> list[str]:
    """Write the tables of a batch; sentences on what could not be written, which stops nothing."""
    heads, rows = table(batch.entries)
    notes = []
    steps = [
        lambda: write_csv(folder / CSV_FILE, heads, rows),
        lambda: write_parquet(folder / PARQUET_FILE, heads, rows),
    ]
    if report:
        from NeuraxisLib.batch_report import write_report

        steps.append(lambda: write_report(batch, folder / REPORT_FILE))
    for step in steps:
        try:
            note = step()
        except NeuraxisError as error:
            note = str(error)
        if note:
            notes.append(note)
    return notes


def table(entries: Iterable[Any]) -> tuple[dict[str, type], list[dict[str, Any]]]:
    """(column -> type, rows) of a batch; columns of measurements in the order in which cases bring them."""
    entries = list(entries)
    measured = {column: float for entry in entries for column in entry.record.get("values", {})}
    return _BEFORE | measured | _AFTER, [_row(entry) for entry in entries]


def write_csv(path: Path, heads: Mapping[str, type], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; OutputError if they cannot be."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([csv_cell(head) for head in heads])
        writer.writerows([csv_cell(row.get(head)) for head in heads] for row in rows)


def write_parquet(path: Path, heads: Mapping[str, type], rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as Parquet; a sentence if pyarrow is not installed. OutputError if they cannot be written."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return f"{path.name} was not written, because the package pyarrow is missing; install it for Parquet tables."
    kinds = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64()}
    columns = {head: pyarrow.array([row.get(head) for row in rows], kinds[kind]) for head, kind in heads.items()}
    with atomic_write(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary)
    return ""


def _row(entry: Any) -> dict[str, Any]:
    record = entry.record
    done = entry.status == "done"
    return {
        "case": entry.case.name,
        "status": entry.status if entry.status in ("done", "failed") else "not done",
        "error_code": record.get("code"),
        "error": record.get("error"),
        **record.get("values", {}),
        "warnings": " ".join(record.get("warnings", ())) or None,
        "series_chosen": record.get("chosen") or entry.case.chosen or None,
        "result_folder": entry.folder.name if done else None,
        "model": record.get("model") or None,
        "neuraxis_version": record.get("version") or None,
        "attempts": record.get("attempts"),
        "seconds": record.get("seconds"),
        "finished": record.get("finished"),
    }
