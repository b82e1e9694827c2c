"""Downloads from a real server on loopback: resumed, checked, refused, cancelled."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from NeuraxisLib import model_download
from NeuraxisLib.background import Background
from NeuraxisLib.errors import CancelledError, InputError, ModelError, OutputError
from NeuraxisLib.model_download import check_address, download, part_of, read_address
from NeuraxisLib.model_index import index_entry
from NeuraxisLib.model_store import ModelStore
from NeuraxisLib.models import load_model
from NeuraxisLib.task import Progress

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "worker_support")]
from bare_models import write_whole_model  # noqa: E402
from model_server import serving  # noqa: E402

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(**{"x.safetensors": CONTENT}) as running:
        yield running


def fetch(server, target: Path, sha256: str = SHA256, progress: Progress | None = None, path: str = "/x.safetensors"):
    download(server.url + path, target, sha256, len(CONTENT), progress)


def test_a_file_arrives_whole_and_progress_is_told(server, tmp_path):
    seen = []
    fetch(server, tmp_path / "x.safetensors", progress=Progress(lambda fraction, stage: seen.append((fraction, stage))))
    assert (tmp_path / "x.safetensors").read_bytes() == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and "of 1.0 MB" in seen[0][1]


def test_a_cut_connection_is_taken_up_where_it_stopped(server, tmp_path):
    server.cut_after = [300_000, 400_000]
    fetch(server, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=700000-"]


def test_a_server_that_is_cut_for_good_leaves_a_part_that_a_later_attempt_goes_on_with(server, tmp_path):
    server.cut_after = [300_000, 0, 0, 0]
    with pytest.raises(InputError, match=r"'127.0.0.1' .*; 0.3 of 1.0 MB are kept, so install 'x.safetensors' again"):
        fetch(server, tmp_path / "x.safetensors")
    part = part_of(tmp_path, SHA256)
    assert part.read_bytes() == CONTENT[:300_000] and not (tmp_path / "x.safetensors").exists()
    fetch(server, tmp_path / "x.safetensors")
    assert server.requests[-1][1] == "bytes=300000-" and (tmp_path / "x.safetensors").read_bytes() == CONTENT
    assert not part.exists()


def test_a_server_without_range_starts_afresh(server, tmp_path):
    part_of(tmp_path, SHA256).write_bytes(CONTENT[:1000])
    server.takes_ranges = False
    fetch(server, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "served", [CONTENT[:-1] + b"\0", CONTENT + b"more", CONTENT[:-5]], ids=["bit", "long", "short"]
)
def test_another_file_is_refused_and_removed(server, tmp_path, served):
    server.files["/x.safetensors"] = served
    with pytest.raises(ModelError, match=r"'x.safetensors' is not the file that the index names .* was removed"):
        fetch(server, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_file_is_noticed_and_removed(server, tmp_path):
    part_of(tmp_path, SHA256).write_bytes(b"z" * 5000)
    with pytest.raises(ModelError, match="was removed"):
        fetch(server, tmp_path / "x.safetensors")
    fetch(server, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == CONTENT


def test_redirects_stay_on_the_network(server, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    server.redirects = {
        "/good": "/x.safetensors",
        "/file": secret.as_uri(),
        "/ftp": "ftp://127.0.0.1/x",
        "/plain": "http://models.example.org/x",
        "/ring": "/ring",
    }
    fetch(server, tmp_path / "good.safetensors", path="/good")
    assert (tmp_path / "good.safetensors").read_bytes() == CONTENT
    for path in ("/file", "/ftp", "/plain"):
        with pytest.raises(
            InputError, match="redirect leads to .*not https|Redirection to url 'file:.* is not allowed"
        ):
            fetch(server, tmp_path / "bad.safetensors", path=path)
    with pytest.raises(InputError, match="answers 302"):
        fetch(server, tmp_path / "bad.safetensors", path="/ring")
    assert not (tmp_path / "bad.safetensors").exists()


def test_no_redirect_from_the_network_to_this_computer():
    handler = model_download._CheckedRedirects()
    request = model_download.urllib.request.Request("https://models.example.org/x")
    with pytest.raises(InputError, match="redirects to this computer"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1:8080/admin")


@pytest.mark.parametrize(
    "address",
    ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x", "https:///x", "https://a b/x", "x", "",
     "http://127.0.0.1.example.org/x", "http://[::1/x", "https://example.org:port/x"],
)  # fmt: skip
def test_other_addresses_are_refused(address):
    with pytest.raises(InputError, match="not https"):
        check_address(address)


def test_allowed_addresses():
    for address in ("https://example.org/x", "http://localhost:1/x", "http://127.3.2.1/x", "http://[::1]:80/x"):
        check_address(address)


def test_no_network_is_a_sentence(tmp_path):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/index.json"
        with pytest.raises(InputError, match=r"'127.0.0.1' cannot be reached.*; check the network, the proxy"):
            read_address(url, 1000)
        with pytest.raises(InputError, match="check the network"):
            download(url, tmp_path / "x", SHA256, 10)


def test_a_missing_file_and_a_flood(server, tmp_path):
    with pytest.raises(InputError, match="answers 404"):
        fetch(server, tmp_path / "x.safetensors", path="/none")
    with pytest.raises(InputError, match="larger than"):
        read_address(server.url + "/x.safetensors", 1000)


def test_the_proxy_of_the_environment_is_asked(server, tmp_path, monkeypatch):
    """The test server plays the proxy: it sees the whole address of a host that does not exist."""
    monkeypatch.setattr(model_download, "check_address", lambda *_, **__: None)  # plain http, to look into
    monkeypatch.setenv("http_proxy", server.url)
    server.files["http://models.invalid/x.safetensors"] = CONTENT
    download("http://models.invalid/x.safetensors", tmp_path / "x.safetensors", SHA256, len(CONTENT))
    assert server.requests[-1][0] == "http://models.invalid/x.safetensors"
    fetch(server, tmp_path / "near.safetensors")
    assert server.requests[-1][0] == "/x.safetensors"  # this machine needs no proxy


def test_cancel_keeps_what_has_arrived(server, tmp_path):
    calls = []

    def cancelled() -> bool:
        calls.append(1)
        return len(calls) > 2

    server.cut_after = [300_000]
    with pytest.raises(CancelledError):
        fetch(server, tmp_path / "x.safetensors", progress=Progress(None, cancelled))
    assert 0 < part_of(tmp_path, SHA256).stat().st_size < len(CONTENT)
    fetch(server, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == CONTENT


def test_cancel_is_answered_within_a_second_though_the_server_stalls(server, tmp_path):
    server.resume, ends = threading.Event(), []
    work = Background(
        lambda progress: fetch(server, tmp_path / "x.safetensors", progress=progress),
        on_done=lambda value: ends.append("done"),
        on_cancelled=lambda: ends.append("cancelled"),
    )
    until(lambda: part_of(tmp_path, SHA256).exists() and part_of(tmp_path, SHA256).stat().st_size > 0)
    work.cancel()
    since = time.monotonic()
    until(lambda: work.poll() or work.state != "running")
    assert ends == ["cancelled"] and time.monotonic() - since < 5
    server.resume.set()
    work._thread.join(20)
    assert ends == ["cancelled"] and not (tmp_path / "x.safetensors").exists()


def test_a_stall_counts_as_a_cut(server, tmp_path, monkeypatch):
    monkeypatch.setattr(model_download, "PATIENCE_S", 0.3)
    server.resume = threading.Event()
    threading.Timer(0.8, lambda: setattr(server, "resume", None)).start()
    fetch(server, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == CONTENT
    assert server.requests[1][1] is not None


def test_a_folder_that_takes_no_files(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="'x.safetensors' could not be written"):
        fetch(server, tmp_path / "file" / "x.safetensors")


def test_a_model_of_an_index_on_the_network(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    model = write_whole_model(tmp_path / "net.safetensors", weights=CONTENT)
    entry = index_entry(load_model(model))
    server.files |= {
        "/models/net.safetensors": model.read_bytes(),
        "/models/index.json": json.dumps({"format_version": 1, "models": [entry]}).encode(),
    }
    store = ModelStore(server.url + "/models/index.json")
    assert store.read_index() == 1
    row = next(row for row in store.models() if row.name == "net")
    assert row.state == "available" and row.can_be_installed and row.card["licence"] == "Apache-2.0"
    server.cut_after = [200_000, 0, 0, 0]
    with pytest.raises(InputError):
        store.install_named("net")
    row = next(row for row in store.models() if row.name == "net")
    assert row.state == "available, 0.2 MB of it here" and row.can_be_removed
    assert store.disk_use_bytes() == row.part_bytes == 200_000
    assert store.install_named("net").models == ("net",)
    row = next(row for row in store.models() if row.name == "net")
    assert row.state == "installed, verified" and row.path.read_bytes() == model.read_bytes()


def until(condition, seconds: float = 20.0) -> None:
    """Wait for it."""
    since = time.monotonic()
    while not condition():
        assert time.monotonic() - since < seconds, "waited in vain"
        time.sleep(0.02)
