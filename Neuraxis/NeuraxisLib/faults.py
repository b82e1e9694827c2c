"""What may be told of a fault that nobody foresaw: its kind and its place in the code, no path and no value.

Words of libraries quote what they stumbled over, which can be the name of a patient's folder or an element of a DICOM
header. Sentences and logs are sent to others, so neither goes into them.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path

#: What stands for a part that is left out.
LEFT_OUT = "\N{HORIZONTAL ELLIPSIS}"
_MOST = 200
_QUOTED = re.compile(r"(?<!\w)(['\"]).*?\1(?!\w)|(?<!\w)['\"].*", re.DOTALL)
_PATH = re.compile(r"\S*[\\/]\S*")
#: So many folders of a source file's path are told.
_PARTS = 2


def words_of(error: BaseException) -> str:
    """What an exception says, in one line, without what it quotes and without paths; of the system, its own words."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = _PATH.sub(LEFT_OUT, _QUOTED.sub(LEFT_OUT, text))
    return " ".join(text.split())[:_MOST]


def trace_of(error: BaseException) -> str:
    """The traceback of an exception and of those that led to it, oldest first: files by name, no values."""
    chain, cause = [error], _led_to(error)
    while cause is not None and not any(cause is one for one in chain):
        chain.insert(0, cause)
        cause = _led_to(cause)
    return "\n".join(line for one in chain for line in _trace(one))


def _led_to(error: BaseException) -> BaseException | None:
    """The exception of which this one came, unless it was meant to hide it."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _trace(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__, limit=-30)
    places = [
        f'  File "{"/".join(Path(frame.filename).parts[-_PARTS:])}", line {frame.lineno}, in {frame.name}'
        for frame in frames
    ]
    return ["Traceback (most recent call last):", *places, f"{type(error).__name__}: {words_of(error)}"]
