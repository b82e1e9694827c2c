"""One training of a sweep in a process of its own: :func:`run_training` starts it and waits, the rest is that process.

Whoever waits may be killed. Then the training hears that the pipe to it has ended, saves and leaves, and whoever takes
the job up again waits for the lock of the run folder, so that no two write to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib.atomic import locked  # noqa: E402
from NeuraxisLib.worker_client import default_python  # noqa: E402
from Training.command import DONE, FAULT, STOPPED  # noqa: E402

LOCK, OUTPUT = "run.lock", "output.log"
#: A training that the system killed is started once more; it goes on from its checkpoint.
ATTEMPTS = 2
_LOOK_S = 0.5


def run_training(arguments: Sequence[str], run: str, stop: str) -> tuple[int, str]:
    """Train in a process of its own; (exit status, what is wrong in one sentence).

    Args:
        arguments: of :mod:`Training.train`.
        run: its run folder, made if it is not there; gets what the process writes (``output.log``).
        stop: path of a file; once it is there, the training saves and stops.
    """
    folder = Path(run)
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        with open(folder / OUTPUT, "ab") as output:
            begun = output.tell()
            process = subprocess.Popen(
                [default_python(), __file__, run, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in a terminal is the sweep's to answer; a second signal acts at once
            )
        status = _wait(process, Path(stop))
        if status >= 0 or Path(stop).exists():
            break
    return (status, _sentence(status, folder / OUTPUT, begun)) if status >= 0 else (FAULT, _killed(-status))


def _wait(process: subprocess.Popen, stop: Path) -> int:
    """Wait for the end; by the file, or if this process is told to end, ask the training to stop."""
    try:
        while True:
            try:
                return process.wait(_LOOK_S)
            except subprocess.TimeoutExpired:
                if stop.exists():
                    process.stdin.close()
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _sentence(status: int, output: Path, begun: int) -> str:
    """The last line that a process wrote, which says why it failed."""
    if status == DONE:
        return ""
    if status == STOPPED:
        return "It was stopped; run the sweep again, and it goes on."
    with open(output, "rb") as file:
        file.seek(begun)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else f"The training ended with status {status} and without a word; see {OUTPUT}."


def _killed(number: int) -> str:
    return (
        f"The training was killed {ATTEMPTS} times (signal {number}), most likely because memory ran out; "
        "use a machine with more memory or a smaller batch."
    )


# -- in the process itself --------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Train in the folder that the first argument names, when nobody else does; the exit status of the training."""
    run = Path(arguments[0])
    threading.Thread(target=_stop_when_left, daemon=True).start()
    with _alone(run / LOCK):
        from Training import train

        return train.main(arguments[1:])


def _stop_when_left() -> None:
    """When the pipe ends, stop as by SIGTERM: the run is saved after the step that is under way."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):  # not through sys.stdin, whose lock Python would need when it ends
            pass
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a run folder; wait for it if an orphan is still saving there."""
    file: BinaryIO = open(path, "a+b")  # noqa: SIM115 - closed below
    try:
        while not locked(file):
            time.sleep(_LOOK_S)
        yield
    finally:
        file.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
