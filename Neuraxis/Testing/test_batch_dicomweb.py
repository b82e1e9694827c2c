"""Cases from a DICOMweb server: a small server of our own that answers QIDO-RS and WADO-RS as the standard says."""

from __future__ import annotations

import json
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom import dcmread

from NeuraxisLib import batch_dicomweb, task
from NeuraxisLib.batch import Batch
from NeuraxisLib.batch_cases import find_cases
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import get_task
from Testing.dicom_series import CANARY, SPARSE_MM, change, new_uid, save, series

pytest.importorskip("dicomweb_client")
SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from bare_models import write_bare_model  # noqa: E402
from batch_support import InlineWorkers  # noqa: E402

STUDY, SERIES = "StudyInstanceUID", "SeriesInstanceUID"


class Server(ThreadingHTTPServer):
    """Holds images in memory; ``lost`` of them are listed but not given."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.images = [dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
        self.lost, self.asked, self.elsewhere = 0, [], ""
        self.url = f"http://127.0.0.1:{self.server_address[1]}/dicom-web"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """QIDO-RS for studies and series, WADO-RS for the metadata and the images of a series (PS3.18, 10.4 and 10.6)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        words, query = parts.path.removeprefix("/dicom-web/").split("/"), parse_qs(parts.query)
        self.server.asked.append(self.path)
        if self.server.elsewhere:
            self.send_response(307)
            self.send_header("Location", self.server.elsewhere + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        images = self.server.images
        if len(words) > 1:
            images = [image for image in images if image.StudyInstanceUID == words[1]]
        if len(words) > 3:
            images = [image for image in images if image.SeriesInstanceUID == words[3]]
        modality = query.get("ModalitiesInStudy", [""])[0]
        images = [image for image in images if modality in ("", image.Modality)]
        if words[-1] == "metadata":
            self._json([self._without_pixels(image) for image in images])
        elif len(words) == 4:
            self._multipart(images[self.server.lost :])
        else:
            self._search(images, STUDY if len(words) == 1 else SERIES, query)

    def log_message(self, *arguments) -> None:
        """Nothing on stderr."""

    def _search(self, images, level: str, query) -> None:
        firsts = list({image[level].value: image for image in images}.values())
        start = int(query.get("offset", ["0"])[0])
        found = firsts[start : start + int(query.get("limit", ["100"])[0])]
        self._json([self._attributes(image, (STUDY, SERIES, "Modality")) for image in found])

    def _attributes(self, image, words) -> dict:
        return {f"{image[word].tag:08X}": image[word].to_json_dict(None, 0) for word in words}

    def _without_pixels(self, image) -> dict:
        return {
            tag: value for tag, value in image.to_json_dict(bulk_data_threshold=1 << 30).items() if tag != "7FE00010"
        }

    def _json(self, found: list) -> None:
        self._send(200 if found else 204, "application/dicom+json", json.dumps(found).encode() if found else b"")

    def _multipart(self, images) -> None:
        assert "application/dicom" in self.headers["Accept"]
        boundary, body = uuid.uuid4().hex, BytesIO()
        for image in images:
            body.write(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode())
            image.save_as(body, enforce_file_format=True)
            body.write(b"\r\n")
        body.write(f"--{boundary}--\r\n".encode())
        self._send(200, f'multipart/related; type="application/dicom"; boundary={boundary}', body.getvalue())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """A server that does not answer is asked as often as ever, but sooner."""
    monkeypatch.setattr(batch_dicomweb, "FIRST_WAIT_MS", 20)


@pytest.fixture
def server(tmp_path):
    """Two studies: a head CT with a bone and a soft series, and a scout alone."""
    study = new_uid()[:40].rstrip(".")
    for place, number, kernel in (("bone", 3, "H70h"), ("soft", 4, "H31s")):
        save(series(SPARSE_MM, uid=f"{study}.{number}", matrix=32, pixel_mm=7.0), tmp_path / "server" / place)
        change(tmp_path / "server" / place, ConvolutionKernel=kernel, SeriesNumber=number, StudyInstanceUID=study)
    save(series(SPARSE_MM[:3], matrix=32, pixel_mm=7.0), tmp_path / "server" / "short")
    made = Server(tmp_path / "server")
    yield made
    made.shutdown()
    made.server_close()


def test_the_series_is_chosen_by_its_headers_and_only_that_one_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    usable, short = sorted(
        find_cases(server.url, get_task("hemorrhage"), tmp_path / "out"), key=lambda c: bool(c.fault)
    )
    assert "H31s" in usable.chosen and "not a sharp kernel" in usable.chosen and "3 slices" in short.fault
    assert CANARY not in repr((usable, short)) and usable.name.startswith("study-")
    assert not [path for path in server.asked if "/series/" in path and "metadata" not in path], "no image was fetched"
    model = str(write_bare_model(tmp_path / "bright.safetensors"))
    workers = InlineWorkers()
    batch = Batch("threshold", [usable, short], tmp_path / "out", workers, model=model)
    good, bad = batch.wait()
    assert good.folder.is_dir() and bad.error.endswith("leave the study out.")
    assert len([path for path in server.asked if "/series/" in path and "metadata" not in path]) == 1
    again = InlineWorkers()
    Batch("threshold", [usable, short], tmp_path / "out", again, model=model).wait()
    assert again.computed == []
    (tmp_path / "out" / "batch.jsonl").unlink()  # as after a kill: the result is known again by its images
    Batch("threshold", [usable], tmp_path / "out", again, model=model).wait()
    assert again.computed == []


def test_a_series_that_comes_without_some_of_its_images_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    cases = [case for case in find_cases(server.url, get_task("hemorrhage"), tmp_path / "out") if not case.fault]
    server.lost = 2
    model = str(write_bare_model(tmp_path / "bright.safetensors"))
    (outcome,) = Batch("threshold", cases, tmp_path / "out", InlineWorkers(), model=model).wait()
    assert outcome.folder is None and "others than it had listed" in outcome.error


def test_a_search_can_be_narrowed(server, tmp_path):
    with pytest.raises(InputError, match=r"'127\.0\.0\.1' has no study that fits"):
        find_cases(f"{server.url}?ModalitiesInStudy=MR", get_task("hemorrhage"), tmp_path / "out")
    assert len(find_cases(f"{server.url}?ModalitiesInStudy=CT", get_task("stroke"), tmp_path / "out")) == 2


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"'127\.0\.0\.1' does not answer"):
        find_cases("http://127.0.0.1:9/dicom-web", get_task("hemorrhage"), tmp_path / "out")


def test_a_redirect_to_another_server_is_refused(server, tmp_path):
    """It would be sent the query, and the password that .netrc has for it, perhaps in plain text."""
    (tmp_path / "empty").mkdir()
    other = Server(tmp_path / "empty")
    server.elsewhere = other.url.removesuffix("/dicom-web")
    try:
        with pytest.raises(InputError, match="answered with status 307"):
            find_cases(server.url, get_task("hemorrhage"), tmp_path / "out")
        assert other.asked == []
    finally:
        other.shutdown()
        other.server_close()


def test_a_password_in_the_address_is_written_nowhere(server, tmp_path, monkeypatch):
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    address = server.url.replace("://", "://reader:GEHEIM77@")
    cases = find_cases(address, get_task("hemorrhage"), tmp_path / "out")
    server.lost = 0
    model = str(write_bare_model(tmp_path / "bright.safetensors"))
    batch = Batch("threshold", cases, tmp_path / "out", InlineWorkers(), model=model)
    said = repr(batch.wait()) + repr([entry.record for entry in batch.entries])
    batch.write_tables()
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"reader" not in written and b"GEHEIM77" not in written and "GEHEIM77" not in said
    server.elsewhere = "http://127.0.0.1:9"
    with pytest.raises(InputError) as error:
        find_cases(address, get_task("hemorrhage"), tmp_path / "out")
    assert "GEHEIM77" not in str(error.value)
