"""Faults on the page: one sentence, whatever went wrong."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from NeuraxisLib.process import as_user_error


def told(call: Callable[..., Any]) -> Callable[..., Any]:
    """A method of an object with a ``_state``: a fault in it becomes the sentence in the page's ``error``."""

    @functools.wraps(call)
    async def telling(self: Any, *arguments: Any, **named: Any) -> None:
        self._state.error = ""
        try:
            result = call(self, *arguments, **named)
            if inspect.isawaitable(result):
                await result
        except Exception as fault:
            with self._state:
                self._state.error = str(as_user_error(fault))

    return telling
