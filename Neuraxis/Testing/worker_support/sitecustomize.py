"""Prepares the Python of a test, when this folder is on its import path: worker or command line.

Registers the test tasks. TEST_SLOW_CALL names a function that shall hang, such as ``os.fsync`` (a disk that does not
answer); TEST_ABSENT names a package that shall not be there; TEST_CLOCK sets the wall clock: seconds since 1970 to
start from, or ``jump`` for one that goes back an hour at every look; TEST_SOCKETS names a file in which every socket
is noted before it is refused; with TEST_LOOPBACK, those that stay on this computer are let pass.
"""

import importlib
import os
import sys
import time

from NeuraxisLib.task import TASKS

TASKS["threshold"] = "threshold_task:TASK"
TASKS["frames"] = "frames_task:TASK"


class _Absent:
    """Import hook for a package that is not installed."""

    def __init__(self, package):
        self._package = package

    def find_spec(self, name, path=None, target=None):
        """Refuse the package and its parts as Python itself would."""
        if name.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


if os.environ.get("TEST_ABSENT"):
    sys.meta_path.insert(0, _Absent(os.environ["TEST_ABSENT"]))

if os.environ.get("TEST_SLOW_CALL"):
    _module, _, _name = os.environ["TEST_SLOW_CALL"].rpartition(".")
    setattr(importlib.import_module(_module), _name, lambda *arguments, **named: time.sleep(60))

if os.environ.get("TEST_CLOCK"):
    _looks, _true = iter(range(1_000_000)), time.time
    if os.environ["TEST_CLOCK"] == "jump":
        time.time = lambda: 1.7e9 - 3600 * next(_looks)
    else:
        _ahead = float(os.environ["TEST_CLOCK"]) - _true()
        time.time = lambda: _true() + _ahead

if os.environ.get("TEST_SOCKETS"):
    import socket_watch

    socket_watch.watch(os.environ["TEST_SOCKETS"], loopback="TEST_LOOPBACK" in os.environ)
