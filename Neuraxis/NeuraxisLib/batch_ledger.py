"""The ledger of a batch: one line of JSON per finished case in the output folder, so that a batch can go on.

Each line is written at once and flushed to the disk; a line that a kill has cut off, or that the disk has damaged, is
passed over. A result that was complete but not yet in the ledger is known by what its result.json says of its input
(``recipe``, ``input_sha256``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from NeuraxisLib.atomic import locked, output_error
from NeuraxisLib.batch_record import is_record
from NeuraxisLib.errors import OutputError

LEDGER_FILE = "batch.jsonl"


class Ledger:
    """Records of finished cases, the newest of each; held by one batch at a time.

    Args:
        output: folder of the batch; made if it is not there.
        known: the same ledger, closed before; it is read anew only if it has grown since.

    Raises:
        OutputError: it cannot be written to, or another batch is writing to it.
    """

    def __init__(self, output: Path, known: Ledger | None = None):
        self.records: dict[str, dict[str, Any]] = {}
        self._size_closed = -1
        self._path = output / LEDGER_FILE
        try:
            output.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO | None = open(self._path, "a+b")  # noqa: SIM115 - closed in close()
        except OSError as error:
            raise output_error(error, output.name) from error
        if not locked(self._file):
            self._file.close()
            raise OutputError(
                f"Another batch is writing to '{output.name}'; wait for its end or choose another folder."
            )
        if known is not None and known._size_closed == self._size():
            self.records = known.records
        else:
            self._read()

    def add(self, record: Mapping[str, Any]) -> None:
        """Append the record of one case (its name under ``case``) and flush it to the disk.

        Raises:
            OutputError: the disk is full or gone.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(error, LEDGER_FILE) from error
        self.records[record["case"]] = dict(record)

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file is not None:
            self._size_closed = self._size()
            self._file.close()
            self._file = None

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _read(self) -> None:
        self._file.seek(0)
        whole = True
        for line in self._file:
            whole = line.endswith(b"\n")
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if is_record(record):
                self.records[record["case"]] = record
        if not whole:  # cut off by a kill: what follows begins a line of its own
            self._file.write(b"\n")
