"""HDF5 crashes on some damaged Keras files and never returns from others: it does so in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib import checkpoint_keras
from NeuraxisLib.checkpoint_keras import read_keras
from NeuraxisLib.checkpoint_keras_process import read_layers
from NeuraxisLib.errors import DependencyError, ModelError, WorkerError, WorkerStartError
from NeuraxisLib.process import is_alive
from Testing.faults.fuzz import SUBJECTS
from Testing.keras_in_numpy import write_keras

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and scripts as launchers")
LAYERS = {
    "conv2d": {"kernel": np.arange(18, dtype=np.float64).reshape(3, 3, 1, 2), "bias": np.float16([0.5, np.nan])},
    "batch_normalization": {"moving_mean": np.int32([3]), "moving_variance": np.ones(1, np.float32)},
    "dense": {"kernel": np.ones((2, 0), np.float32), "bias": np.float32(7)},
}


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The system's temporary folder of the test."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.fixture
def opening(tmp_path, monkeypatch):
    """A function after which to open an HDF5 file in a new process does what a line of code says, once it has
    written its number to the file that the function returns."""

    def does(line: str) -> Path:
        pid = tmp_path / "pid"
        hook = tmp_path / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(
            f"import h5py, os, signal, sys\n\ndef opened(*_):\n    with open({str(pid)!r}, 'w') as file:\n"
            f"        file.write(str(os.getpid()) + '\\n')\n    {line}\n\nh5py.File = opened\n"
        )
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")]))
        return pid

    return does


def test_the_arrays_are_those_that_one_process_would_read(tmp_path, temporary):
    path = write_keras(tmp_path / "a.h5", LAYERS)
    layers, wanted = read_keras(path), read_layers(path)
    assert [layer.name for layer in layers] == [layer.name for layer in wanted] == list(LAYERS)
    for layer, other in zip(layers, wanted):
        assert list(layer.weights) == list(other.weights) == list(LAYERS[layer.name])
        for name, value in layer.weights.items():
            assert value.dtype == np.float32 and value.shape == other.weights[name].shape and value.flags.writeable
            assert np.array_equal(value, LAYERS[layer.name][name], equal_nan=True)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", ModelError, r"short \(the HDF5 library crashed on it\); obtain"),
        ("os.kill(os.getpid(), signal.SIGKILL)", ModelError, r"short \(reading it took all memory\); obtain"),
        ("while True: pass", ModelError, r"short \(no answer within 2 s\); obtain"),
        ("raise OSError", ModelError, "was cut short; obtain"),
        ("raise MemoryError", ModelError, r"short \(it asks for more memory than it may take\); obtain"),
        ("raise ModuleNotFoundError('h5py', name='h5py')", DependencyError, "package 'h5py' is not installed"),
        ("sys.exit(3)", WorkerError, r"failed \(exit code 3\)"),
    ],
)
def test_whatever_becomes_of_the_process_is_said_in_a_sentence(tmp_path, temporary, opening, line, kind, words):
    path = write_keras(tmp_path / "a.h5", LAYERS)
    pid = opening(line)
    with pytest.raises(kind, match=words) as caught:
        read_keras(path, limit_s=2.0)
    assert type(caught.value) is kind and str(tmp_path) not in str(caught.value)
    assert not is_alive(int(pid.read_text()))
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps to a limit of memory")
def test_memory_is_limited(tmp_path, opening):
    path = write_keras(tmp_path / "a.h5", LAYERS)
    opening("return bytearray(3 << 30)")  # zeros that are never written, which any machine has
    with pytest.raises(ModelError, match="asks for more memory than it may take"):
        read_keras(path)


@pytest.mark.parametrize("number", [82, 5439, 8358])
def test_files_on_which_hdf5_hung_or_crashed_are_refused(tmp_path, number):
    """Mutants of the fuzzing: HDF5 2.0.0 never returns from the first and crashes on the others."""
    subject = SUBJECTS["keras-checkpoint"]
    path = subject.write(tmp_path)
    path.write_bytes(subject.mutate(path.read_bytes(), number))
    with pytest.raises(ModelError, match=r"^The Keras file 'net.h5' is damaged .*; obtain it again\.$"):
        read_keras(path, limit_s=2.0)


def test_ctrl_c_ends_the_process_that_reads(tmp_path, opening):
    path = write_keras(tmp_path / "a.h5", LAYERS)
    pid = opening("while True: pass")
    code = "import pathlib, sys, NeuraxisLib.checkpoint_keras as keras; keras.read_keras(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as run:
        while not (pid.is_file() and pid.read_text().endswith("\n")) and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        assert run.communicate()[1].strip().endswith("KeyboardInterrupt")
    assert not is_alive(int(pid.read_text()))
    assert list(tmp_path.glob("neuraxis-*")) == []


def test_a_launcher_may_start_it_as_inside_slicer(tmp_path, opening, monkeypatch):
    path = write_keras(tmp_path / "a.h5", LAYERS)
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    launcher.chmod(0o700)
    monkeypatch.setattr(checkpoint_keras, "default_python", lambda: str(launcher))
    assert [layer.name for layer in read_keras(path)] == list(LAYERS)
    opening("os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ModelError, match="the HDF5 library crashed on it"):
        read_keras(path)


def test_an_interpreter_that_cannot_be_started_is_named(tmp_path, monkeypatch):
    path = write_keras(tmp_path / "a.h5", LAYERS)
    monkeypatch.setattr(checkpoint_keras, "default_python", lambda: "no-such-python")
    with pytest.raises(WorkerStartError, match=r"'no-such-python' cannot be started \(No such file"):
        read_keras(path)
