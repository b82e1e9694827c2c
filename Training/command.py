"""What the commands of this package share: exit statuses, Ctrl-C, faults in one sentence, quitting Slicer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from NeuraxisLib.process import as_user_error, heed_interruption

#: Exit statuses: done; a fault told in one sentence; a command line that cannot be read; done, but some cases were
#: left out; stopped by Ctrl-C.
DONE, FAULT, USAGE, SOME_LEFT_OUT, STOPPED = 0, 1, 2, 3, 130


def run_command(
    parse: Callable[[list[str]], argparse.Namespace],
    work: Callable[[argparse.Namespace], int | None],
    arguments: list[str],
    interrupted: str = "Interrupted; start the same command again to go on.",
    log_fault: Callable[[argparse.Namespace, Exception], None] | None = None,
) -> int:
    """Read the command line, do the work, and return the exit status; nothing is raised.

    Args:
        parse: makes the options; argparse's own exit (``--help``, a bad command line) becomes a status, because inside
            Slicer nobody else would turn it into one.
        work: does the job; returns a status, None for DONE.
        arguments: without the program's name; a leading ``--``, as Slicer hands it over, is dropped.
        interrupted: said on Ctrl-C.
        log_fault: told of the options and the exception that ended the work, such as to keep a traceback in a log.
    """
    heed_interruption()
    try:
        options = parse(arguments[1:] if arguments[:1] == ["--"] else arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return work(options) or DONE
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return STOPPED
    except Exception as error:
        if log_fault is not None:
            log_fault(options, error)
        print(as_user_error(error), file=sys.stderr)
        return FAULT


def finish(status: int) -> None:
    """End the program; inside Slicer, ask Slicer to quit with the status."""
    slicer = sys.modules.get("slicer")
    if slicer is not None and hasattr(slicer, "app"):
        slicer.util.exit(status)
    else:
        sys.exit(status)
