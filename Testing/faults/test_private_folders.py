"""What a kill leaves in the temporary folder: nothing that the next run does not remove, nothing of anybody else."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

pytest.importorskip("fcntl")

from NeuraxisLib.private_folder import private_folder, remove_private, sweep
from NeuraxisLib.worker_process import child_environment

CODE = """
import sys
from NeuraxisLib.private_folder import private_folder
folder = private_folder("case")
(folder / "image.dcm").write_text("KANARIENVOGEL")
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def owner() -> subprocess.Popen:
    """A process that has made a private folder and lives on."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", CODE], stdin=pipe, stdout=pipe, text=True,
                               env=child_environment([], None, 1, hide_gpu=True))  # fmt: skip
    process.folder = process.stdout.readline().strip()
    return process


def test_a_folder_outlives_no_killed_owner_and_no_living_one_loses_his(temporary):
    killed, living = owner(), owner()
    try:
        assert {stat.S_IMODE(path.stat().st_mode) for path in temporary.iterdir()} == {0o700}
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert os.path.isdir(killed.folder)
        ours = private_folder("exchange")
        assert not os.path.exists(killed.folder) and os.path.isdir(living.folder) and ours.is_dir()
        sweep()
        assert os.path.isfile(f"{living.folder}/image.dcm") and ours.is_dir(), "nobody sweeps what he holds himself"
        remove_private(ours)
        assert not ours.exists()
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()


def test_folders_of_others_are_left_alone(temporary, tmp_path_factory):
    """A folder without our lock, and a link by which somebody would have us remove a folder of our own."""
    (temporary / "neuraxis-notes").mkdir()
    precious = tmp_path_factory.mktemp("precious")
    (precious / ".owner").touch()
    (temporary / "neuraxis-link").symlink_to(precious)
    (temporary / "neuraxis-trap").mkdir()
    (temporary / "neuraxis-trap" / ".owner").symlink_to(precious / ".owner")
    sweep()
    assert (temporary / "neuraxis-notes").is_dir() and (precious / ".owner").is_file()
