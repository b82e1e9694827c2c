"""Prepares the Python of a test, when this folder is on its import path: worker or command line.

Registers the test tasks. TEST_SLOW_CALL names a function that shall hang, such as ``os.fsync`` (a disk that does not
answer); TEST_ABSENT names a package that shall not be there.
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
