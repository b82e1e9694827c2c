"""Work in a thread beside an event loop that, like Slicer's, keeps Python's lock to itself."""

from __future__ import annotations

import ctypes
import sys

import pytest

from NeuraxisLib import background
from NeuraxisLib.background import Background
from NeuraxisLib.errors import InputError


def ends_after(work, turns: int = 1000) -> tuple[list, int]:
    """What the callbacks heard, and after how many turns of a loop in C that holds the lock for 20 ms a turn."""
    hold_lock_us = ctypes.PyDLL(None).usleep
    heard: list = []
    run = Background(work, heard.append, heard.append, lambda: heard.append("cancelled"))
    for turn in range(turns):
        hold_lock_us(20_000)
        run.poll()
        if run.state != "running":
            return heard, turn + 1
    raise AssertionError("the work never ended")


def count_up(progress) -> int:
    """Some tenths of a second of nothing but Python."""
    return sum(n % 7 for n in range(3_000_000))


@pytest.mark.skipif(sys.platform == "win32", reason="no usleep there")
def test_work_goes_on_while_the_interface_waits_for_it(monkeypatch):
    heard, turns = ends_after(count_up)
    monkeypatch.setattr(background, "TURN_S", 0.0)
    same, many = ends_after(count_up)
    assert heard == same == [count_up(None)]
    assert turns < many / 2


@pytest.mark.skipif(sys.platform == "win32", reason="no usleep there")
def test_a_fault_is_delivered_once():
    def fail(progress):
        raise InputError("'a.nrrd' is empty; choose another.")

    heard, _ = ends_after(fail)
    assert [str(error) for error in heard] == ["'a.nrrd' is empty; choose another."]
