"""The first run on computers that are not as one would wish: no torch, no network, no rights, strange paths."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from NeuraxisLib import task
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_client import WorkerClient
from NeuraxisLib.worker_process import import_roots
from Testing.slicer_stand_in.fixtures import add_head, application, stand_in  # noqa: F401

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path[:0] = [str(SUPPORT)]
from bare_models import write_bare_model  # noqa: E402

posix_only = pytest.mark.skipif(os.name != "posix", reason="symbolic links, and paths longer than Windows takes")


# -- packages -----------------------------------------------------------------------------------------------------


@pytest.fixture
def panel(application, monkeypatch):  # noqa: F811
    """The HemorrhageSeg panel with a head in the scene, on a Slicer that has no torch and not the PyTorch extension."""
    neuraxis = sys.modules["Neuraxis"].NeuraxisLogic
    missing = ["torch"]
    monkeypatch.setattr(neuraxis, "missingPackages", lambda self, file: list(missing))
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    add_head()
    widget = application.new_widget("HemorrhageSeg")
    yield SimpleNamespace(ui=widget.ui, missing=missing, widget=widget)
    application.close_widget(widget)


def give_extensions(monkeypatch, answer) -> list[str]:
    """An extensions manager that answers so; returns what it was asked for."""
    import slicer

    asked: list[str] = []
    manager = SimpleNamespace(installExtensionFromServer=lambda name: asked.append(name) or answer)
    monkeypatch.setattr(type(slicer.app), "extensionsManagerModel", lambda self: manager, raising=False)
    return asked


def test_without_torch_nothing_runs_and_the_panel_says_what_to_do(application, panel, monkeypatch):  # noqa: F811
    assert not panel.ui.installFrame.isHidden() and "torch" in panel.ui.installLabel.text
    assert not panel.ui.applyButton.enabled and panel.ui.applyButton.toolTip == "Install the missing packages first."
    asked = give_extensions(monkeypatch, True)
    panel.ui.installButton.click()
    assert asked == ["PyTorch"] and panel.ui.statusLabel.text.startswith("Restart Slicer once")
    assert not panel.ui.applyButton.enabled
    give_extensions(monkeypatch, False)
    panel.ui.installButton.click()
    assert "check the network" in panel.ui.statusLabel.text
    monkeypatch.setitem(sys.modules, "PyTorchUtils", torch_utils(lambda: panel.missing.clear() or "torch"))
    panel.ui.installButton.click()
    assert panel.ui.statusLabel.text == "Installed." and panel.ui.installFrame.isHidden()
    assert panel.ui.applyButton.enabled and application.recorded.dialogs == []


def torch_utils(install) -> SimpleNamespace:
    """The PyTorch extension's module."""
    return SimpleNamespace(
        PyTorchUtilsLogic=lambda: SimpleNamespace(
            installTorch=lambda askConfirmation, torchVersionRequirement: install()
        )
    )


def test_without_a_network_installing_ends_in_a_sentence(application, panel, monkeypatch):  # noqa: F811
    def no_network():
        raise subprocess.CalledProcessError(1, ["pip", "install", "torch"])

    monkeypatch.setitem(sys.modules, "PyTorchUtils", torch_utils(no_network))
    panel.ui.installButton.click()
    said = panel.ui.statusLabel.text
    assert said.startswith("Nothing was installed (Command") and "check the network" in said and said.endswith("says.")
    panel.missing[:] = ["safetensors>=0.4"]
    application.packaging.absent.add("safetensors")
    application.packaging.agrees = False
    panel.ui.installButton.click()
    assert panel.ui.statusLabel.text.startswith("Nothing was installed (User declined")
    assert application.recorded.dialogs == [] and not panel.ui.applyButton.enabled


# -- folders and paths --------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the test task in a worker made with these settings; its result."""
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    volume = Volume(np.full((2, 4, 4), 100, np.int16), np.diag([-1.0, -1.0, 5.0, 1.0]), "HU")
    clients = []

    def start(model: Path, output: Path | None = None, paths=(), **settings):
        client = WorkerClient(paths=[*paths, SUPPORT], threads=1, **settings)
        clients.append(client)
        handle = client.run(client.job("threshold", {"ct": volume}, str(model), output=output))
        return read_result(client.wait(handle, 60))

    yield start
    for client in clients:
        client.stop()


@posix_only
def test_interpreter_model_and_result_in_folders_with_strange_and_long_names(run, tmp_path):
    deep = tmp_path.joinpath("Überprüfung 患者 [x] 'y'", *["a folder with a long name " * 4] * 4)
    deep.mkdir(parents=True)
    (deep / "pythön").symlink_to(sys.executable)
    site = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    model = write_bare_model(deep / "modèle.safetensors", name="bright")
    result = run(model, deep / "résultat 1", python=deep / "pythön", environment={**os.environ, "PYTHONPATH": site})
    assert result.provenance["model"] == "bright" and result.measurements[0].value == pytest.approx(0.16)
    assert sorted(path.name for path in deep.iterdir()) == ["modèle.safetensors", "pythön", "résultat 1"]


def test_nothing_is_written_into_the_installation(run, tmp_path):
    """An audit hook in the worker refuses to write below the libraries, as a read-only disk would."""
    hook = tmp_path / "hook"
    hook.mkdir()
    roots = [str(root) for root in import_roots()]
    (hook / "sitecustomize.py").write_text(
        "import errno, os, runpy, sys\n"
        "sys.dont_write_bytecode = True\n"
        f"ROOTS = {roots!r}\n"
        "def watch(event, arguments):\n"
        "    changes = event in ('open', 'os.mkdir', 'os.rename', 'os.remove')\n"
        "    if changes and str(arguments[0]).startswith(tuple(ROOTS)):\n"
        "        writes = event != 'open' or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)\n"
        "        if writes:\n"
        "            raise OSError(errno.EROFS, 'Read-only file system', str(arguments[0]))\n"
        "sys.addaudithook(watch)\n"
        f"runpy.run_path({str(SUPPORT / 'sitecustomize.py')!r})\n"
    )
    model = write_bare_model(tmp_path / "bright.safetensors")
    assert run(model, tmp_path / "result", paths=[hook]).provenance["model"] == "bright"
    probe = f"open({str(Path(roots[0]) / 'probe.txt')!r}, 'w')"  # the hook does what it says
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(hook), *roots])}
    done = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, timeout=60)
    assert "Read-only file system" in done.stderr and not (Path(roots[0]) / "probe.txt").exists()
