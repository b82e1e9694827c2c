"""Refuses sockets to a test, and notes the attempts: all of them, or all that leave this computer."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Any

#: Event -> which of its arguments is the address, a pair of host and port.
_ADDRESS = {"socket.connect": 1, "socket.bind": 1, "socket.sendto": 1}
#: Event -> which of its arguments is the host.
_HOST = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}
#: The notes that are kept now; none where nothing is refused. An audit hook cannot be taken away again.
_watching: list[tuple[Path, bool]] = []
_hooked = False


def watch(notes: str | Path, loopback: bool = False) -> None:
    """Refuse sockets from now on and write each attempt to a file.

    Args:
        notes: gets a line per attempt.
        loopback: let pass what stays on this computer: 127.0.0.1, ::1, localhost and sockets of the file system.
    """
    global _hooked
    _watching[:] = [(Path(notes), loopback)]
    if not _hooked:
        sys.addaudithook(_refuse)
        _hooked = True


def stop() -> None:
    """Refuse nothing any more."""
    _watching.clear()


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or (event not in _ADDRESS and event not in _HOST):
        return
    notes, loopback = _watching[0]
    if loopback and _stays_here(event, arguments):
        return
    with open(notes, "a") as file:
        file.write(f"{event} {arguments[1:] if event in _ADDRESS else arguments}\n")
    raise OSError("the test allows no network")


def _stays_here(event: str, arguments: tuple[Any, ...]) -> bool:
    if event in _ADDRESS:
        address = arguments[_ADDRESS[event]]
        if isinstance(address, (str, bytes)):  # of the file system
            return True
        host = address[0]
    else:
        host = arguments[_HOST[event]]
    host = host.decode() if isinstance(host, bytes) else host
    if host in ("localhost", None):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
