"""Registers the test task in a Python that has this folder on its import path: the worker of a test."""

from NeuraxisLib.task import TASKS

TASKS["threshold"] = "threshold_task:TASK"
