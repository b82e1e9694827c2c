"""Files from the network: https or this machine alone, resumable, and kept only if their SHA-256 is right."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import re
import urllib.request
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from NeuraxisLib import __version__
from NeuraxisLib.atomic import output_error
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.task import Progress

#: Seconds without a byte after which a connection counts as cut.
PATIENCE_S = 10.0
#: A download goes on by itself after this many cuts in a row that brought nothing new.
RETRIES = 2
_CHUNK = 1 << 18
_CUT = (OSError, http.client.HTTPException)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where the first address could have pointed; never off the network or to a file."""

    def redirect_request(self, request, file, code, message, headers, new_url):
        """The request that follows, or InputError."""
        check_address(new_url, of_redirect=True)
        if is_this_machine(new_url) and not is_this_machine(request.full_url):
            raise InputError(f"'{_host(request.full_url)}' redirects to this computer, which is refused.")
        return super().redirect_request(request, file, code, message, headers, new_url)


def is_this_machine(url: str) -> bool:
    """Whether an address is the loopback interface."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(url: str, of_redirect: bool = False) -> None:
    """InputError unless the address is https, or http on this machine."""
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0 and not re.search(r"[\x00-\x20\x7f]", url)
    except ValueError:
        good = False
    if not good or not (parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(url))):
        what = "A redirect leads to" if of_redirect else "The address is"
        raise InputError(f"{what} '{url[:120]}', which is not https; ask whoever provides the models.")


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Opens https and http, nothing else; what is not on this machine goes through the proxies of the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if is_this_machine(url) else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _CheckedRedirects(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def read_address(url: str, most_bytes: int) -> bytes:
    """The content at an address; InputError if it cannot be had or is larger than ``most_bytes``."""
    check_address(url)
    try:
        with _open(url) as response:
            content = response.read(most_bytes + 1)
    except _CUT as fault:
        raise InputError(_interrupted(url, fault, "", 0, 0)) from fault
    if len(content) > most_bytes:
        raise InputError(f"What '{_host(url)}' sends is larger than {most_bytes / 1e6:.0f} MB; check the address.")
    return content


def part_of(folder: Path, sha256: str) -> Path:
    """Where the unfinished download of a file waits; short, so that it fits where the file's own name does."""
    return folder / f".{sha256[:32]}.part"


def download(url: str, target: Path, sha256: str, size_bytes: int, progress: Progress | None = None) -> None:
    """Fetch a file; go on where an earlier attempt stopped. On success ``target`` is whole and its hash right.

    Cancelled or cut, what has arrived is kept in :func:`part_of` for the next attempt. Two processes that fetch the
    same file at once do no harm: they write the same bytes to the same places.

    Raises:
        InputError: the address is not allowed, does not answer, or the connection was cut again and again.
        ModelError: the file is not the one that the index names; it was removed.
        OutputError: the disk is full, the folder may not be written to.
    """
    check_address(url)
    progress = progress or Progress()
    part = part_of(target.parent, sha256)
    try:
        part.touch()
        _fetch(url, part, target.name, size_bytes, progress)
        progress(1.0, "Checking")
        _accept(part, target, sha256)
    except ModelError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise output_error(error, target.name) from error


def _fetch(url: str, part: Path, name: str, size_bytes: int, progress: Progress) -> None:
    """Fill the part; after a cut, go on as long as something new arrives."""
    failures = 0
    while (have := part.stat().st_size) < size_bytes:
        fault = _one_connection(url, part, have, size_bytes, name, progress)
        arrived = part.stat().st_size
        failures = 0 if arrived > have else failures + 1
        if isinstance(fault, HTTPError) and fault.code == 416:
            raise _wrong(name)
        if isinstance(fault, HTTPError) or failures > RETRIES:
            raise InputError(_interrupted(url, fault, name, arrived, size_bytes))


def _one_connection(
    url: str, part: Path, have: int, size_bytes: int, name: str, progress: Progress
) -> Exception | None:
    """Write what one connection brings; returns the fault of the network that ended it, or None. Disk faults raise."""
    try:
        response = _open(url, have)
    except _CUT as fault:
        return fault
    with response:
        here = _start_of(response, have)
        with open(part, "r+b") as file:
            file.seek(here)
            while True:
                progress(here / size_bytes, f"Downloading, {here / 1e6:.1f} of {size_bytes / 1e6:.1f} MB")
                try:
                    chunk = response.read1(_CHUNK)
                except _CUT as fault:
                    return fault
                if not chunk:
                    return None
                here += len(chunk)
                if here > size_bytes:
                    raise _wrong(name)
                file.write(chunk)
                file.flush()  # a cancel or a cut keeps it


def _open(url: str, start: int = 0) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"Neuraxis/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    return _opener(url).open(urllib.request.Request(url, headers=headers), timeout=PATIENCE_S)


def _start_of(response: http.client.HTTPResponse, wanted: int) -> int:
    """From which byte the answer counts: a server without Range sends all."""
    if response.status != 206:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not found or int(found.group(1)) != wanted:
        raise ModelError("The server sent another part of the file than was asked for; try again.")
    return wanted


def _accept(part: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with open(part, "r+b") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        os.fsync(file.fileno())
    if digest.hexdigest() != sha256:
        raise _wrong(target.name)
    os.replace(part, target)


# -- words --------------------------------------------------------------------------------------------------------


def _wrong(name: str) -> ModelError:
    return ModelError(
        f"What arrived as '{name}' is not the file that the index names (another SHA-256 or size) and was removed; try "
        "again, or ask whoever provides the models."
    )


def _interrupted(url: str, fault: Exception | None, name: str, arrived: int, size_bytes: int) -> str:
    remedy = "check the network, the proxy and the address"
    if arrived:
        remedy = f"{arrived / 1e6:.1f} of {size_bytes / 1e6:.1f} MB are kept, so install '{name}' again to go on"
    return f"'{_host(url)}' {_reason(fault)}; {remedy}."


def _reason(fault: Exception | None) -> str:
    if fault is None:
        return "ended the connection too early"
    if isinstance(fault, HTTPError):
        return f"answers {fault.code} ({str(fault.reason)[:160]})"
    reason = fault.reason if isinstance(fault, URLError) else fault
    if isinstance(reason, TimeoutError):
        return "does not answer in time"
    text = getattr(reason, "strerror", None) or " ".join(str(reason).split()) or type(reason).__name__
    return f"cannot be reached, or cut the connection ({text[:160]})"


def _host(url: str) -> str:
    return urlsplit(url).hostname or url[:80]
