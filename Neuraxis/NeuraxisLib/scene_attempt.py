"""Something that may fail in words of another program: the answer is a sentence for the panel, never a pop-up."""

from __future__ import annotations

import logging
from collections.abc import Callable

import slicer

from NeuraxisLib.errors import NeuraxisError


def attempt(act: Callable[[], str], failed: str) -> str:
    """What ``act`` answers, under a wait cursor; if it raises, our own sentence, or ``failed`` and the reason.

    Args:
        act: does the work and returns the sentence to show.
        failed: what did not work, such as "Installation failed."
    """
    try:
        with slicer.util.WaitCursor():
            return act()
    except NeuraxisError as error:
        return str(error)
    except Exception as error:  # of pip, of Slicer's DICOM import, of a reader: whatever they raise
        logging.error("%s %s", failed, error)
        return f"{failed} {error}"
