"""A DICOMweb server as a source of cases: studies are searched for, a series chosen by its headers, then fetched.

A series is named by its WADO-RS address with a mark of its images behind ``#``, so that a series that has got other
images is another input. Names and passwords are those of the user's ``.netrc``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

from NeuraxisLib.batch_cases import Case
from NeuraxisLib.batch_dicom import study_key
from NeuraxisLib.dicom_headers import SliceHeader, headers_of
from NeuraxisLib.dicom_series import group_series
from NeuraxisLib.errors import DependencyError, InputError
from NeuraxisLib.series_rule import choose_by_rule
from NeuraxisLib.task import Progress, Task

#: As stored, whatever the compression; else servers decompress, or compress with loss.
_AS_STORED = (("application/dicom", "*"),)
#: How often a server that is busy or silent is asked, and how long is waited first; then twice as long each time.
ATTEMPTS, FIRST_WAIT_MS = 4, 1000


def cases_of_dicomweb(address: str, task: Task, progress: Progress | None = None) -> list[Case]:
    """One case per study on a DICOMweb server, with the series that the task's rule takes.

    Args:
        address: of the server, such as ``https://host/dicom-web``; a query narrows the search, such as
            ``?StudyDate=20260101-20260131&ModalitiesInStudy=CT``.
        task: whose rule chooses the series.
        progress: told how far it is; may cancel.

    Raises:
        InputError: the server does not answer, or has no study that fits.
        DependencyError: dicomweb-client is not installed.
    """
    server, query = _split(address)
    progress, filters = progress or Progress(), dict(parse_qsl(query))
    with _Faults(server):
        client = _client(server)
        studies = client.search_for_studies(search_filters=filters, get_remaining=True)
        cases = []
        for index, study in enumerate(studies):
            progress(index / len(studies), "Looking at the studies of the server")
            cases.append(_case_of_study(client, server, _value(study, "0020000D"), task))
    if not cases:
        raise InputError(f"The DICOMweb server '{_name(server)}' has no study that fits; widen the search.")
    return sorted(cases, key=lambda case: case.name)


def fetch_series(address: str, folder: Path) -> None:
    """Fetch all images of a series into a folder, as stored.

    Raises:
        InputError: the server does not answer, or gives other images than it has listed.
    """
    address, _, mark = address.partition("#")
    server, _, rest = address.partition("/studies/")
    study, _, series = rest.partition("/series/")
    found = []
    with _Faults(server):
        for number, image in enumerate(_client(server).iter_series(study, series, media_types=_AS_STORED)):
            found.append(str(image.SOPInstanceUID))
            image.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)
    if _mark(found) != mark:
        raise InputError(
            f"The DICOMweb server '{_name(server)}' gave {len(found)} images, others than it had listed; run again."
        )


def _case_of_study(client: Any, server: str, uid: str, task: Task) -> Case:
    main, rule, name = next(iter(task.inputs)), task.series, study_key(uid)
    headers: dict[str, list[SliceHeader]] = {}
    for entry in client.search_for_series(uid, get_remaining=True):
        if rule.modality in ("", _value(entry, "00080060")):
            series = _value(entry, "0020000E")
            headers[series] = _series_headers(client, uid, series)
    if not any(headers.values()):
        return Case(name, {main: ""}, fault=f"The study has no {rule.modality} series; leave it out.")
    if rule.whole_study:
        chosen = f"all {len(headers)} {rule.modality} series of the study; the task finds its images among them"
        return Case(name, {main: tuple(_address(server, uid, *item) for item in headers.items())}, chosen=chosen)
    choice = choose_by_rule(rule, group_series([header for some in headers.values() for header in some]))
    if choice.series is None:
        return Case(name, {main: ""}, fault=f"No series suits the task: {choice.reason}; leave the study out.")
    series = choice.series.headers[0].series_uid
    place = (_address(server, uid, series, headers[series]),)
    return Case(name, {main: place}, choice.series.info.key, chosen=choice.reason)


def _series_headers(client: Any, study: str, series: str) -> list[SliceHeader]:
    from pydicom.dataset import Dataset

    found: list[SliceHeader] = []
    for image in client.retrieve_series_metadata(study, series):
        found += headers_of(Dataset.from_json(image, lambda *where: b""), Path(series))
    return found


def _address(server: str, study: str, series: str, headers: Iterable[SliceHeader]) -> str:
    return f"{server}/studies/{study}/series/{series}#{_mark(header.sop_uid for header in headers)}"


def _mark(images: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(set(images))).encode()).hexdigest()[:16]


def _split(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"), parts.query


def _name(server: str) -> str:
    return urlsplit(server).hostname or server


def _value(entry: dict, tag: str) -> str:
    values = entry.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _client(server: str) -> Any:
    try:
        import dicomweb_client.api
    except ImportError as error:
        raise DependencyError(
            "Cases from a DICOMweb server need the package 'dicomweb-client'; install 'neuraxis[dicomweb]'."
        ) from error
    client = dicomweb_client.api.DICOMwebClient(server, session=_session())
    client.set_http_retry_params(max_attempts=ATTEMPTS, wait_exponential_multiplier=FIRST_WAIT_MS // 2)
    return client


def _session() -> Any:
    """A session that follows no redirect to another server, so that passwords go nowhere else, nor unencrypted."""
    import requests

    class SameServer(requests.Session):
        def get_redirect_target(self, response: Any) -> str | None:
            target = super().get_redirect_target(response)
            if target is not None and _origin(urljoin(response.url, target)) != _origin(response.url):
                raise requests.TooManyRedirects("to another server", response=response)
            return target

    return SameServer()


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme.lower(), parts.netloc.lower().rpartition("@")[2]


class _Faults:
    """Turns what goes wrong with a server into one sentence."""

    def __init__(self, server: str):
        self._server = server

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> None:
        try:
            import requests
        except ImportError:  # then dicomweb-client, which brings it, is not there either
            return
        if isinstance(error, requests.RequestException):
            response = getattr(error, "response", None)
            reason = f"answered with status {response.status_code}" if response is not None else "does not answer"
            raise InputError(
                f"The DICOMweb server '{_name(self._server)}' {reason}; check the address and your rights."
            ) from error
