"""The Neuraxis panel on the stand-in: every button is clicked, and what it changed is looked at."""

from __future__ import annotations

import errno
import json
import re
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from NeuraxisLib import RESEARCH_USE_NOTICE, panel
from NeuraxisLib.model_index import index_of_folder, shipped_index, write_index
from NeuraxisLib.models import user_model_folder
from NeuraxisLib.selftest import TaskOutcome
from Testing.slicer_stand_in.fixtures import ROOT, application, stand_in  # noqa: F401

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "worker_support")]
from bare_models import write_whole_model  # noqa: E402
from fake_torch import write_torch  # noqa: E402
from model_server import serving  # noqa: E402

UI_FILES = [
    ROOT / "Neuraxis" / "Resources" / "UI" / f"Neuraxis{name}.ui" for name in ("", "Models", "Computing", "SelfTest")
]


@pytest.fixture
def settings(application):  # noqa: F811
    """The application settings, cleared of ours after the test."""
    import slicer

    stored = slicer.app.userSettings()
    yield stored
    for name in dir(panel):
        if name.endswith("_SETTING"):
            stored.remove(getattr(panel, name))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Where the models of the user will lie; nothing is there yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return user_model_folder()


@pytest.fixture
def widget(application, settings, home, tmp_path, monkeypatch):  # noqa: F811
    """The panel; another Python than Slicer's finds a torch that takes no time to import."""
    monkeypatch.setattr(
        sys.modules["slicer"].util, "startupEnvironment", lambda: {"PYTHONPATH": str(tmp_path / "fake")}
    )
    made = application.new_widget("Neuraxis")
    yield made
    application.close_widget(made)


@pytest.fixture
def stick(tmp_path) -> Path:
    """A folder with a good model and one that is none."""
    folder = tmp_path / "stick"
    folder.mkdir()
    write_whole_model(folder / "good.safetensors", title="Good model", training={"data": "forty heads"})
    (folder / "wrong.safetensors").write_bytes(b"PK\x03\x04 not a model")
    return folder


def ui_of(widget, name: str):
    """The widgets of the section that has ``name``."""
    return next(ui for ui in (widget.ui, *(s.ui for s in widget._sections)) if hasattr(ui, name))


def click(widget, name: str, wait: bool = True) -> None:
    """Click a button, which must be enabled, and wait until what it began is over."""
    button = getattr(ui_of(widget, name), name)
    assert button.enabled, name
    button.click()
    if wait:
        settle(widget)


def settle(widget, seconds: float = 60.0) -> None:
    """Let the panel's timer run until nothing is under way."""
    import slicer

    since = time.monotonic()
    while widget.isBusy:
        assert time.monotonic() - since < seconds, "waited in vain"
        slicer.app.processEvents()
        time.sleep(0.01)


def choose(widget, title: str) -> list[str]:
    """Select a model; the texts of its row."""
    table = ui_of(widget, "modelsTable").modelsTable
    row = next(row for row in range(table.rowCount) if table.item(row, 0).text() == title)
    table.selectRow(row)
    return [table.item(row, column).text() for column in range(table.columnCount)]


def titles(widget) -> list[str]:
    table = ui_of(widget, "modelsTable").modelsTable
    return [table.item(row, 0).text() for row in range(table.rowCount)]


def said(widget) -> str:
    return widget.ui.statusLabel.text


def ask_with(application, *answers) -> None:  # noqa: F811
    """Answers for the next file dialogs."""
    application.recorded.answers.extend(map(str, answers))


# -- models -------------------------------------------------------------------------------------------------------


def test_bundled_models_are_there_with_their_cards(widget):
    assert len(titles(widget)) == len(shipped_index())
    title = next(entry.title for entry in shipped_index() if entry.name == "hemorrhage-drunet-starter")
    row = choose(widget, title)
    assert row[1] == "bundled" and 1 < float(row[2]) < 20 and row[3:] == ["hemorrhage", "Apache-2.0"]
    ui = ui_of(widget, "modelsTable")
    assert "Trained on:" in ui.modelCardLabel.text and "Scores:" in ui.modelCardLabel.text
    assert not ui.removeButton.enabled and not ui.installButton.enabled and not ui.undoButton.enabled
    assert widget.ui.noticeLabel.text == RESEARCH_USE_NOTICE and widget.ui.progressFrame.isHidden()


def test_file_is_installed_removed_brought_back(application, widget, stick, home):  # noqa: F811
    ui = ui_of(widget, "modelsTable")
    ask_with(application, stick / "good.safetensors")
    click(widget, "addFileButton")
    assert said(widget) == "Installed: good." and (home / "good.safetensors").is_file()
    assert choose(widget, "Good model")[1] == "installed, verified" and "forty heads" in ui.modelCardLabel.text
    assert ui.diskLabel.text == "Your models take 0.1 MB."
    click(widget, "removeButton")
    assert "Good model" not in titles(widget) and "Undo brings it back" in said(widget)
    assert not (home / "good.safetensors").exists()
    click(widget, "undoButton")
    assert "Good model" in titles(widget) and (home / "good.safetensors").is_file() and not ui.undoButton.enabled
    choose(widget, "Good model")
    click(widget, "removeButton")
    widget.cleanup()
    assert list(home.iterdir()) == []  # gone for good when Slicer closes
    assert application.recorded.dialogs == [("open file", "Install a model file")]  # no question, no message box


def test_folder_is_installed_and_the_refused_named(application, widget, stick):  # noqa: F811
    ask_with(application, stick)
    click(widget, "addFolderButton")
    assert said(widget).startswith("Installed: good.") and "'wrong.safetensors' is a PyTorch pickle" in said(widget)
    ask_with(application, stick / "wrong.safetensors")
    click(widget, "addFileButton")
    assert "zip archive" in said(widget) and "Good model" in titles(widget)


def test_file_dialogs_that_are_closed_change_nothing(application, widget):  # noqa: F811
    before = titles(widget)
    for name in ("addFileButton", "addFolderButton", "browseIndexButton"):
        ask_with(application, "")
        click(widget, name)
    assert titles(widget) == before and ui_of(widget, "indexLineEdit").indexLineEdit.text == ""


def test_index_of_a_share_offers_models(application, widget, stick, settings, home):  # noqa: F811
    ui = ui_of(widget, "indexLineEdit")
    write_index(stick / "index.json", index_of_folder(stick)[0])
    assert not ui.lookButton.enabled
    ask_with(application, stick / "index.json")
    click(widget, "browseIndexButton")
    assert settings.value(panel.INDEX_SETTING) == str(stick / "index.json") and "Good model" not in titles(widget)
    click(widget, "lookButton")
    assert said(widget) == "The index at the file names 1 models."
    assert choose(widget, "Good model")[1] == "available"
    click(widget, "installButton")
    assert choose(widget, "Good model")[1] == "installed, verified" and (home / "good.safetensors").is_file()
    ui.indexLineEdit.text = str(stick / "none.json")
    click(widget, "lookButton")
    assert "'none.json' cannot be opened" in said(widget)


def test_without_a_network_the_index_is_a_sentence(widget, monkeypatch):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens
        ui_of(widget, "indexLineEdit").indexLineEdit.text = f"https://127.0.0.1:{bound.getsockname()[1]}/index.json"
        click(widget, "lookButton")
    assert said(widget).startswith("'127.0.0.1' cannot be reached") and "check the network" in said(widget)
    ui_of(widget, "indexLineEdit").indexLineEdit.text = "http://models.example.org/index.json"
    click(widget, "lookButton")
    assert "is not https" in said(widget)
    assert len(titles(widget)) == len(shipped_index())


def test_a_folder_that_takes_no_files_is_a_sentence(application, widget, stick, monkeypatch):  # noqa: F811
    def refuse(*_, **__):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    for name, answer in (("addFileButton", stick / "good.safetensors"), ("addFolderButton", stick)):
        ask_with(application, answer)
        click(widget, name)
        assert "'Models' could not be written: the folder may not be written to" in said(widget)
    click(widget, "openFolderButton")
    assert "may not be written to" in said(widget) and application.recorded.opened == []


def test_download_shows_progress_and_cancel_keeps_what_came(widget, stick, home):
    content = (write_whole_model(stick / "good.safetensors", title="Good model", weights=bytes(2_000_000))).read_bytes()
    index = {"format_version": 1, "models": index_of_folder(stick)[0]}
    with serving(**{"good.safetensors": content, "index.json": json.dumps(index).encode()}) as server:
        ui_of(widget, "indexLineEdit").indexLineEdit.text = server.url + "/index.json"
        click(widget, "lookButton")
        assert said(widget) == "The index at the address names 1 models."
        choose(widget, "Good model")
        server.resume = threading.Event()
        click(widget, "installButton", wait=False)
        assert not widget.ui.progressFrame.isHidden()
        wait_for(lambda: "of 2.0 MB" in said(widget) and widget.ui.progressBar.value >= 40)
        ui = ui_of(widget, "modelsTable")
        assert not ui.installButton.enabled and not ui.addFileButton.enabled and not ui.verifyButton.enabled
        click(widget, "cancelButton")
        assert said(widget) == "Cancelled; what was finished before was kept." and widget.ui.progressFrame.isHidden()
        assert "MB of it here" in choose(widget, "Good model")[1] and ui.removeButton.enabled
        server.resume.set()
        server.resume = None
        click(widget, "installButton")
        assert said(widget) == "Installed: good." and (home / "good.safetensors").read_bytes() == content


def wait_for(condition, seconds: float = 20.0) -> None:
    """Process events until it holds."""
    import slicer

    since = time.monotonic()
    while not condition():
        assert time.monotonic() - since < seconds, "waited in vain"
        slicer.app.processEvents()
        time.sleep(0.01)


def test_verify_names_the_altered_model(application, widget, stick, home):  # noqa: F811
    ask_with(application, stick / "good.safetensors")
    click(widget, "addFileButton")
    content = bytearray((home / "good.safetensors").read_bytes())
    content[-1] ^= 1
    (home / "good.safetensors").write_bytes(content)
    click(widget, "verifyButton")
    count = len(shipped_index()) + 1
    assert said(widget).startswith(f"{count - 1} of {count} models are as they should be. The model file 'good.safet")
    assert choose(widget, "Good model")[1] == "installed, altered"
    assert "is damaged or was altered" in ui_of(widget, "modelCardLabel").modelCardLabel.text


def test_folder_of_the_models_is_opened_or_a_sentence_says_why_not(application, widget, home, tmp_path):  # noqa: F811
    click(widget, "openFolderButton")
    assert application.recorded.opened == [str(home)] and home.is_dir()
    home.rmdir()
    home.parent.rmdir()
    home.parent.write_text("in the way")
    click(widget, "openFolderButton")
    assert "could not be written" in said(widget) and len(application.recorded.opened) == 1


# -- settings -----------------------------------------------------------------------------------------------------


def test_settings_are_stored_reach_workers_and_can_be_reset(widget, settings):
    ui, client = ui_of(widget, "deviceComboBox"), widget.logic.newClient()
    ui.deviceComboBox.setCurrentIndex(ui.deviceComboBox.findData("cpu"))
    ui.threadsSpinBox.value = 2
    ui.memorySpinBox.value = 6
    ui.pythonPathLineEdit.currentPath = sys.executable
    expected = {"python": sys.executable, "threads": 2, "device": "cpu", "memory_limit_gb": 6}
    assert panel.worker_settings(settings.value) == expected
    assert (client._python, client._threads, client._device, client._memory_limit_gb) == (sys.executable, 2, "cpu", 6)
    click(widget, "resetButton")
    assert panel.worker_settings(settings.value) == panel.worker_settings({}.get)
    assert (ui.threadsSpinBox.value, ui.memorySpinBox.value, ui.pythonPathLineEdit.currentPath) == (0, 0, "")
    assert ui.deviceComboBox.currentData == "auto" and client._threads is None and client._device == "auto"


def test_settings_of_an_earlier_session_are_shown(application, settings, home):  # noqa: F811
    settings.setValue(panel.THREADS_SETTING, "5")
    settings.setValue(panel.MEMORY_SETTING, "7")
    settings.setValue(panel.DEVICE_SETTING, "cpu")
    settings.setValue(panel.INDEX_SETTING, "index.json")
    widget = application.new_widget("Neuraxis")
    ui = ui_of(widget, "deviceComboBox")
    assert (ui.threadsSpinBox.value, ui.memorySpinBox.value, ui.deviceComboBox.currentData) == (5, 7, "cpu")
    assert ui_of(widget, "indexLineEdit").indexLineEdit.text == "index.json"
    application.close_widget(widget)


@pytest.mark.parametrize(("system", "enabled"), [("linux", True), ("win32", False), ("darwin", False)])
def test_a_memory_limit_can_be_set_where_it_has_an_effect(application, settings, home, monkeypatch, system, enabled):  # noqa: F811
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", system)
        widget = application.new_widget("Neuraxis", enter=False)
    spin = ui_of(widget, "memorySpinBox").memorySpinBox
    assert spin.enabled is enabled and "Linux only" in spin.toolTip
    application.close_widget(widget)


def test_check_says_what_this_computer_has(widget, tmp_path):
    write_torch(tmp_path / "fake", "raise ImportError('libcudart.so.12: cannot open shared object file')")
    ui = ui_of(widget, "checkLabel")
    ui.pythonPathLineEdit.currentPath = sys.executable
    click(widget, "checkButton")
    assert ui.checkLabel.text.startswith("Python 3.")
    assert "PyTorch is installed but cannot be loaded (ImportError: libcudart.so.12" in ui.checkLabel.text
    ui.pythonPathLineEdit.currentPath = "/no/such/python"
    assert ui.checkLabel.text == ""
    click(widget, "checkButton")
    assert "'/no/such/python' does not start" in said(widget) and widget.ui.progressFrame.isHidden()


# -- self-test ----------------------------------------------------------------------------------------------------


def test_self_test_fills_the_table(widget, monkeypatch):
    outcomes = [
        TaskOutcome("hemorrhage", "Segment hemorrhage", 3.21, "cpu"),
        TaskOutcome("discs", "Label discs", 0.5, "", "PyTorch is missing.", "dependency"),
    ]
    given = []

    def fake(client, tasks, progress):
        given.append((client, [task.name for task in tasks]))
        return outcomes

    monkeypatch.setattr(sys.modules["NeuraxisLib.scene_selftest"], "self_test", fake)
    click(widget, "selfTestButton")
    ui = ui_of(widget, "outcomesTable")
    texts = [[ui.outcomesTable.item(row, column).text() for column in range(4)] for row in range(2)]
    assert texts == [["Segment hemorrhage", "passed", "3.2", "cpu"], ["Label discs", "failed", "0.5", ""]]
    assert ui.outcomesLabel.text == "Label discs: PyTorch is missing."
    assert said(widget) == "Self-test: 1 of 2 do not work here: Label discs."
    assert given[0][1] == ["hemorrhage", "stroke", "discs"]


def test_self_test_can_be_cancelled(widget, monkeypatch):
    stopped = []
    client = SimpleNamespace(
        run=lambda job: SimpleNamespace(is_finished=False, fraction=0.3, stage="Computing"),
        wait=lambda handle, seconds: (_ for _ in ()).throw(TimeoutError()),
        stop=lambda: stopped.append(True),
    )
    monkeypatch.setattr(widget.logic, "newClient", lambda: client)
    click(widget, "selfTestButton", wait=False)
    wait_for(lambda: "Segment hemorrhage: Computing" in said(widget))
    assert not ui_of(widget, "selfTestButton").selfTestButton.enabled
    click(widget, "cancelButton")
    wait_for(lambda: stopped)
    assert said(widget).startswith("Cancelled") and ui_of(widget, "selfTestButton").selfTestButton.enabled


# -- the panel as a whole -----------------------------------------------------------------------------------------


def test_other_sections_find_their_place(application, widget):  # noqa: F811
    import qt

    calls = []
    top = qt.QLabel("more")
    section = SimpleNamespace(
        top=top, refresh=lambda volume, folder: calls.append("refresh"), leave=lambda: calls.append("leave")
    )
    assert widget.add(section) is section and top.parent() is widget.parent
    widget.enter()
    widget.cleanup()
    assert calls == ["refresh", "leave"]


def test_the_module_s_own_tests_pass_here(widget, monkeypatch):
    """What Reload and Test runs in Slicer; the interpreter is asked without the seconds that torch takes."""
    module = sys.modules["Neuraxis"]
    monkeypatch.setattr(module.NeuraxisLogic, "describeWorker", lambda self: ["Python 3.12.1 on Linux."])
    module.NeuraxisTest().runTest()
    monkeypatch.setattr(module.NeuraxisLogic, "describeWorker", lambda self: ["no answer"])
    with pytest.raises(AssertionError):
        module.NeuraxisTest().runTest()


def test_every_button_is_clicked_in_this_file():
    clicked = set(re.findall(r'click\(widget, "(\w+)"', Path(__file__).read_text()))
    clicked |= {"addFileButton", "addFolderButton", "browseIndexButton"}
    nodes = [node for path in UI_FILES for node in ElementTree.parse(path).iter("widget")]
    buttons = {node.get("name") for node in nodes if node.get("class") in ("QPushButton", "QToolButton")}
    assert buttons == clicked


@pytest.mark.parametrize("name", ["models", "settings", "selftest"])
def test_widgets_that_a_section_uses_are_in_its_ui_file(name):
    source = (ROOT / "Neuraxis" / "NeuraxisLib" / f"scene_{name}.py").read_text()
    file = next(path for path in UI_FILES if path.name in source)
    nodes = list(ElementTree.parse(file).iter("widget"))
    used = set(re.findall(r"\bui\.(\w+)", source))
    assert used and used <= {node.get("name") for node in nodes}
    for node in nodes:
        if node.get("class") in ("QPushButton", "QToolButton", "QSpinBox", "QComboBox", "QLineEdit", "QTableWidget"):
            assert any(p.get("name") == "toolTip" for p in node.findall("property")), node.get("name")
