"""What comes from strangers: archives, packed bombs, hostile names and texts; and what goes out: nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fault_support import SUPPORT, assert_refused, entries, head, linux_only, neuraxis, neuraxis_process

from NeuraxisLib.checkpoint_torch import read_torch
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.worker_process import child_environment

sys.path.append(str(SUPPORT))
from worker_fixtures import threshold_task  # noqa: F401

# -- archives -----------------------------------------------------------------------------------------------------

HOSTILE = ["../escaped.txt", "/tmp/escaped.txt", "C:\\escaped.txt", "a/../../escaped.txt", "scan.nrrd"]


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in HOSTILE:
            archive.writestr(name, "out of the archive")


def tarred(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name in HOSTILE:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


@pytest.mark.parametrize(("name", "make"), [("scans.zip", zipped), ("scans.tar.gz", tarred), ("scan.nii.gz", tarred)])
def test_archives_are_not_opened(name, make, bare, tmp_path):
    make(tmp_path / name)
    before = entries(tmp_path)
    assert_refused(neuraxis("threshold", tmp_path / name, tmp_path / "out", "--model", bare), 3, name)
    assert entries(tmp_path) == before and not Path("/tmp/escaped.txt").exists()


def test_archives_in_a_folder_of_images_are_left_out(bare, tmp_path):
    zipped(tmp_path / "a.zip")
    assert_refused(neuraxis("threshold", tmp_path, tmp_path / "out", "--model", bare), 3, "no DICOM images")
    assert set(os.listdir(tmp_path)) == {"a.zip"}


def test_a_checkpoint_with_paths_in_it_writes_no_file(tmp_path):
    """PyTorch's checkpoints are zip archives; their members are read in memory, under whatever name."""
    pytest.importorskip("torch")
    zipped(tmp_path / "weights.pt")
    with pytest.raises(ModelError):
        read_torch(tmp_path / "weights.pt")
    assert set(os.listdir(tmp_path)) == {"weights.pt"} and not Path("/tmp/escaped.txt").exists()


# -- bombs --------------------------------------------------------------------------------------------------------


def test_a_packed_file_that_never_ends(bare, tmp_path):
    """Two hundred times its size of zeros behind a small image: refused after one slice too many."""
    write_volume(head(), tmp_path / "plain.nii")
    with gzip.open(tmp_path / "bomb.nii.gz", "wb", compresslevel=1) as file:
        file.write((tmp_path / "plain.nii").read_bytes())
        for _ in range(64):
            file.write(bytes(1 << 20))
    read: list[int] = []
    plain = gzip.GzipFile.read

    def counted(self, size=-1):
        data = plain(self, size)
        read.append(len(data))
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip.GzipFile, "read", counted)
        done = neuraxis("threshold", tmp_path / "bomb.nii.gz", tmp_path / "out", "--model", bare)
    assert_refused(done, 3, "holds more than its header says")
    assert sum(read) < 1 << 20


def test_a_header_with_fewer_slices_than_the_file(tmp_path):
    """Half a scan would be measured as if it were the whole."""
    write_volume(head(), tmp_path / "scan.nii")
    data = bytearray((tmp_path / "scan.nii").read_bytes())
    data[46:48] = (10).to_bytes(2, "little")
    (tmp_path / "scan.nii").write_bytes(data)
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(data))
    for name in ("scan.nii", "scan.nii.gz"):
        with pytest.raises(InputError, match="holds more than its header says"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"a":' * 100_000, '{"schema": "x", "x": ' + "9" * 5000 + "}", "NaN", "", "\x00", '{"schema":'],
    ids=["lists", "objects", "digits", "nan", "nothing", "zero", "cut"],
)  # fmt: skip
def test_a_result_file_that_is_a_bomb(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(InputError, match=r"damaged|does not hold a result"):
        read_result(tmp_path)


def test_a_result_that_names_files_elsewhere(bare, scan, tmp_path):
    """result.json of a stranger must not make Neuraxis read, or call its own, what lies outside its folder."""
    assert neuraxis_process("threshold", scan, tmp_path / "out", "--model", bare).returncode == 0
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    document["labels"]["file"] = "../secret.nrrd"
    (tmp_path / "out" / "result.json").write_text(json.dumps(document))
    (tmp_path / "out" / "labels.seg.nrrd").rename(tmp_path / "secret.nrrd")
    with pytest.raises(InputError, match="is damaged"):
        read_result(tmp_path / "out")


# -- names and shells -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="names that Windows does not allow")
@pytest.mark.parametrize(
    "name", ["$(touch escaped)", "`touch escaped`", "; touch escaped #", "a' \"b", "-rf", "a&b|c>d", "a\nline", "ü 山"]
)
def test_names_that_a_shell_would_obey(name, bare, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    write_volume(head(), folder / f"{name}.nrrd")
    done = neuraxis_process("threshold", folder / f"{name}.nrrd", folder / "out", "--model", bare)
    assert done.returncode == 0, done.stderr
    assert set(os.listdir(folder)) == {f"{name}.nrrd", "out"} and set(os.listdir(tmp_path)) == {name}
    assert not Path("escaped").exists()


# -- the network ----------------------------------------------------------------------------------------------------


def test_nothing_reaches_for_the_network(model, scan, tmp_path):
    """A whole hemorrhage run with every socket refused; proxies that are dead change nothing."""
    dead = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    notes = tmp_path / "sockets"
    done = neuraxis_process("hemorrhage", scan, tmp_path / "out", "--model", model, TEST_SOCKETS=str(notes), **dead)
    assert done.returncode == 0, done.stderr
    assert not notes.exists(), notes.read_text()


def test_the_refusal_of_sockets_works(tmp_path):
    """Guards the test above against passing because nothing is refused."""
    paths = os.pathsep.join([str(SUPPORT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "TEST_SOCKETS": str(tmp_path / "n")}
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode and (tmp_path / "n").read_text().startswith("socket.")


@linux_only
def test_a_machine_without_any_network(model, scan, tmp_path):
    """In a network namespace of its own, without even a loopback that is up."""
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here (needs root)")
    command = ["unshare", "-n", sys.executable, "-m", "NeuraxisLib.cli", "hemorrhage", scan, tmp_path / "out"]
    command += ["--model", model]
    environment = child_environment([SUPPORT], None, 1, hide_gpu=False)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- temporary files ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_what_is_temporary_is_private_and_goes(client, bare, tmp_path, monkeypatch):
    """Exchange folder and its files: for the owner alone, below the temporary folder, gone with the client."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    os.umask(os.umask(0o022))
    job = client.job("threshold", {"ct": head()}, str(bare))
    folders = [path for path in (tmp_path / "tmp").rglob("*") if path.is_dir()]
    assert folders and Path(job.inputs["ct"]).is_relative_to(tmp_path / "tmp")
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    result = client.wait(client.run(job), timeout=120)
    assert result.is_relative_to(tmp_path / "tmp") and stat.S_IMODE(result.parent.stat().st_mode) == 0o700
    client.stop()
    assert os.listdir(tmp_path / "tmp") == []


def test_the_command_line_leaves_nothing_temporary(model, scan, tmp_path):
    (tmp_path / "tmp").mkdir()
    done = neuraxis_process("hemorrhage", scan, tmp_path / "out", "--model", model, TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == 0 and os.listdir(tmp_path / "tmp") == [] and set(os.listdir(tmp_path)) == {"out", "tmp"}


def test_big_endian_files_are_read_as_what_they_are(tmp_path):
    """NRRD and MetaImage of the other byte order."""
    array = head().array.astype(">i2")
    fields = "\n".join([
        "NRRD0004", "type: int16", "dimension: 3", "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, array.shape[::-1])), "space directions: (3.4,0,0) (0,3.4,0) (0,0,10)",
        "endian: big", "encoding: raw", "space origin: (-107.1,-107.1,-90)", "", "",
    ])  # fmt: skip
    (tmp_path / "big.nrrd").write_bytes(fields.encode() + array.tobytes())
    read = read_volume(tmp_path / "big.nrrd")
    np.testing.assert_array_equal(read.array, head().array)
    np.testing.assert_allclose(read.ijk_to_ras, head().ijk_to_ras)
