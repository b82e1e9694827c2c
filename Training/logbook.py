"""The log of a run: one JSON record per line, and TensorBoard's curves and pictures where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from NeuraxisLib.atomic import atomic_write

LOG = "log.jsonl"


class LogBook:
    """Takes records such as ``{"step": 10, "loss": 0.5}``; use as a context manager.

    What a killed run did after its last checkpoint is done again, so its records after ``step`` are dropped.

    Args:
        run: folder of the run.
        step: where the run goes on.
        silent: writes nothing; for all but the first of several processes.
    """

    def __init__(self, run: Path, step: int, silent: bool = False):
        self._board = None
        self._stream = None
        if silent:
            return
        _trim(run / LOG, step)
        self._stream = (run / LOG).open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        except ImportError:
            pass

    def __call__(self, record: dict[str, Any]) -> None:
        """Write a record; NaN becomes null, numbers become curves, an array (h, w, 3) uint8 becomes a picture."""
        pictures = {name: value for name, value in record.items() if isinstance(value, np.ndarray)}
        clean = {n: None if v != v else v for n, v in record.items() if n not in pictures}
        if self._stream is not None:
            self._stream.write(json.dumps(clean) + "\n")
            self._stream.flush()
        if self._board is None:
            return
        for name, value in clean.items():
            if name != "step" and isinstance(value, (int, float)):
                self._board.add_scalar(name, value, record["step"])
        for name, picture in pictures.items():
            self._board.add_image(name, picture, record["step"], dataformats="HWC")

    def __enter__(self) -> LogBook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._board is not None:
            self._board.close()


def _trim(path: Path, step: int) -> None:
    """Drop the records after ``step``, and a line cut short by a kill."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["step"] <= step:
            kept.append(line + "\n")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
