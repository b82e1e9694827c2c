"""The Neuraxis logic on the stand-in: packages that are missing, half installed or too old, and how they come."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import SimpleNamespace

import pytest

from NeuraxisLib import panel
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401

KEYS = (
    panel.PYTHON_SETTING, panel.THREADS_SETTING, panel.DEVICE_SETTING, panel.MEMORY_SETTING, panel.INDEX_SETTING,
)  # fmt: skip


@pytest.fixture
def settings(application):  # noqa: F811
    """The application settings, as they were before when the test is over."""
    import slicer

    stored = slicer.app.userSettings()
    yield stored
    for key in KEYS:
        stored.remove(key)


@pytest.fixture
def logic(application, settings):  # noqa: F811
    """The module's logic."""
    return sys.modules["Neuraxis"].NeuraxisLogic()


@pytest.fixture
def requirements(tmp_path):
    """A requirements.txt with one package that is here and one that is not."""
    path = tmp_path / "requirements.txt"
    path.write_text("numpy>=1.20\nneuraxis-no-such-package>=1\n")
    return path


def test_missing_packages_with_slicer_s_python_and_with_another(logic, settings, requirements, monkeypatch):
    assert "neuraxis-no-such-package>=1" in logic.missingPackages(requirements)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    assert logic.missingPackages(requirements)[0] == "torch"
    settings.setValue(panel.PYTHON_SETTING, "/opt/python")
    assert logic.missingPackages(requirements) == []


def test_torch_that_is_half_there_is_missing(logic, requirements, tmp_path, monkeypatch):
    """A folder that a removal left behind, and a version that is too old, count as missing; torch is not imported."""
    requirements.write_text("numpy>=1.20\n")
    monkeypatch.setattr(sys.modules[type(logic).__module__], "REQUIREMENTS_FILE", requirements)
    assert "torch" not in logic.missingPackages(requirements)
    version = panel.importlib.metadata.version
    for found, missing in (("2.1.9+cpu", True), ("2.2.0", False), (None, False)):
        monkeypatch.setattr(
            panel.importlib.metadata, "version", lambda name, found=found: found if name == "torch" else version(name)
        )
        assert ("torch" in logic.missingPackages(requirements)) is missing
    find = importlib.util.find_spec
    (tmp_path / "torch").mkdir()
    leftover = importlib.machinery.PathFinder.find_spec("torch", [str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: leftover if name == "torch" else find(name))
    assert logic.missingPackages(requirements) == ["torch"]


def test_a_package_whose_record_has_no_version_is_missing(tmp_path, monkeypatch):
    (tmp_path / "half_installed-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not panel.is_installed("half-installed>=1") and not panel.is_installed("half-installed")


def test_what_every_worker_needs_is_checked_with_the_module_s_own(logic, requirements, tmp_path, monkeypatch):
    core = tmp_path / "core.txt"
    core.write_text("neuraxis-no-such-core>=1\n")
    monkeypatch.setattr(sys.modules[type(logic).__module__], "REQUIREMENTS_FILE", core)
    missing = [name for name in logic.missingPackages(requirements) if name != "torch"]
    assert missing == ["neuraxis-no-such-core>=1", "neuraxis-no-such-package>=1"]


def test_packages_are_installed_through_slicer_packaging(application, logic, requirements):  # noqa: F811
    sentence = logic.installPackages(requirements)
    assert application.packaging.ensured == ["neuraxis-no-such-package>=1"]
    assert sentence == "Still missing: neuraxis-no-such-package>=1."


def test_packages_on_slicer_5_10(logic, requirements, monkeypatch):
    import slicer

    asked, installed = [], []
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)  # importing it fails
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: asked.append(text) or True)
    monkeypatch.setattr(slicer.util, "pip_install", installed.append)
    logic.installPackages(requirements)
    assert installed == [["neuraxis-no-such-package>=1"]] and "neuraxis-no-such-package" in asked[0]


@pytest.mark.parametrize("extension", [True, False], ids=["PyTorch extension", "without it"])
def test_torch_comes_from_the_pytorch_extension(logic, requirements, monkeypatch, extension):
    import slicer

    calls = []
    requirements.write_text("numpy>=1.20\n")
    monkeypatch.setattr(logic, "missingPackages", lambda file: [] if "installed" in calls else ["torch"])
    if extension:
        installer = SimpleNamespace(installTorch=lambda **options: calls.extend(["installed", options]) or "torch")
        monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=lambda: installer))
        assert logic.installPackages(requirements) == "Installed."
        assert calls[1] == {"askConfirmation": True, "torchVersionRequirement": ">=2.2"}
    else:
        monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
        manager = SimpleNamespace(installExtensionFromServer=calls.append)
        monkeypatch.setattr(type(slicer.app), "extensionsManagerModel", lambda self: manager, raising=False)
        assert "Restart Slicer" in logic.installPackages(requirements) and calls == ["PyTorch"]
