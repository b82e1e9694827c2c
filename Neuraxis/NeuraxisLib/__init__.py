"""Shared core of Neuraxis: volumes, files, tasks, results, models, measures, reports.

Every door of the product (Slicer module, command line, batch, training) walks one line through this package:
read a :class:`~NeuraxisLib.volume.Volume`, hand it to a :class:`~NeuraxisLib.task.Task`, get a
:class:`~NeuraxisLib.result.Result`, show or write it. Importing the package imports neither torch nor Slicer.
"""

__version__ = "0.1.0"

RESEARCH_USE_NOTICE = "For research use only. Not a medical device; not for diagnosis or treatment decisions."
