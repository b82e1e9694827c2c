"""The Neuraxis panel and logic on the stand-in: settings, packages, models."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from NeuraxisLib import panel
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401


@pytest.fixture
def settings(application):  # noqa: F811
    """The application settings, as they were before when the test is over."""
    import slicer

    stored = slicer.app.userSettings()
    yield stored
    for key in (panel.PYTHON_SETTING, panel.THREADS_SETTING):
        stored.remove(key)


@pytest.fixture
def logic(application, settings):  # noqa: F811
    """The module's logic."""
    return sys.modules["Neuraxis"].NeuraxisLogic()


@pytest.fixture
def widget(application, settings, tmp_path, monkeypatch):  # noqa: F811
    """The panel, with an empty folder of user models."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    made = application.new_widget("Neuraxis")
    yield made
    application.close_widget(made)


@pytest.fixture
def requirements(tmp_path):
    """A requirements.txt with one package that is here and one that is not."""
    path = tmp_path / "requirements.txt"
    path.write_text("numpy>=1.20\nneuraxis-no-such-package>=1\n")
    return path


def test_settings_go_into_the_worker(widget, logic, settings):
    widget.ui.pythonPathLineEdit.currentPath = sys.executable
    widget.ui.threadsSpinBox.value = 2
    assert panel.worker_settings(settings.value) == {"python": sys.executable, "threads": 2}


def test_check_says_what_the_python_has(widget, monkeypatch):
    widget.ui.checkButton.click()
    assert widget.ui.checkLabel.text.startswith("Python 3.") and "numpy" in widget.ui.checkLabel.text
    widget.ui.pythonPathLineEdit.currentPath = "/no/such/python"
    monkeypatch.setattr(sys.modules["slicer"].util, "startupEnvironment", lambda: {})
    widget.ui.checkButton.click()
    assert "does not start" in widget.ui.checkLabel.text


def test_models_can_be_added_and_removed(application, widget, tmp_path, monkeypatch):  # noqa: F811
    pytest.importorskip("torch")
    from Testing.untrained_models import write_untrained_model

    before = widget.ui.modelsTable.rowCount
    path = write_untrained_model(tmp_path / "mine.safetensors")
    application.recorded.answers.append(str(path))
    widget.ui.addModelButton.click()
    rows = [widget.ui.modelsTable.item(row, 0).text() for row in range(widget.ui.modelsTable.rowCount)]
    assert len(rows) == before + 1 and "Untrained" in rows
    widget.ui.modelsTable.selectRow(rows.index("Untrained"))
    assert "for tests only" in widget.ui.modelCardLabel.text and widget.ui.removeModelButton.enabled
    monkeypatch.setattr(sys.modules["slicer"].util, "confirmOkCancelDisplay", lambda text: True)
    widget.ui.removeModelButton.click()
    assert widget.ui.modelsTable.rowCount == before


def test_what_is_no_model_is_refused_in_a_sentence(application, widget, tmp_path):  # noqa: F811
    (tmp_path / "wrong.safetensors").write_bytes(b"PK\x03\x04 not a model")
    application.recorded.answers.append(str(tmp_path / "wrong.safetensors"))
    widget.ui.addModelButton.click()
    assert "wrong.safetensors" in widget.ui.statusLabel.text and "zip archive" in widget.ui.statusLabel.text


def test_missing_packages_with_slicer_s_python_and_with_another(logic, settings, requirements, monkeypatch):
    assert "neuraxis-no-such-package>=1" in logic.missingPackages(requirements)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    assert logic.missingPackages(requirements)[0] == "torch"
    settings.setValue(panel.PYTHON_SETTING, "/opt/python")
    assert logic.missingPackages(requirements) == []


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
