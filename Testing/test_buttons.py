"""Every button of every clinical panel, clicked in a panel with a result: something that a user can see changes.

The buttons are found in the panel itself, parts that several modules share included: a button that is new is clicked
without being named here, and one that needs more than a result gets a line in ``BEFORE``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from xml.etree import ElementTree

import pytest
from panel_states import CLINICAL, Opened, open_panel
from project_tree import ROOT, files_in, module_names

from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from Testing.slicer_stand_in.fake_worker import follow_up_result
from Testing.slicer_stand_in.fixtures import TILTED, application, head_array, stand_in  # noqa: F401

#: Names of the widgets in .ui files; Qt has buttons of its own inside other widgets.
NAMES = {w.get("name") for m in module_names() for p in files_in(ROOT / m / "Resources", "*.ui")
         for w in ElementTree.parse(p).iter("widget")}  # fmt: skip
BUTTONS = ("QPushButton", "QToolButton")
#: Properties of a widget that a user sees.
SEEN = ("text", "checked", "value", "currentIndex", "count", "toolTip", "enabled", "currentPath", "rowCount")


def panel_buttons(widget) -> dict:
    """Name -> button of a panel, without those that only fold and unfold; parts of panels come before their names."""
    from PySide6 import QtWidgets

    found = [button for button in widget.parent.findChildren(QtWidgets.QAbstractButton) if button.objectName in NAMES]
    return {path_of(button): button for button in found if button.metaObject().className() != "ctkCollapsibleButton"}


def path_of(widget) -> str:
    """``part.name``: the part is what lies directly in the panel."""
    part = widget
    while part.parentWidget() is not None and part.parentWidget().parentWidget() is not None:
        part = part.parentWidget()
    return f"{part.objectName}.{widget.objectName}"


def seen(opened: Opened, button, folder) -> dict:
    """What a user sees: widgets, scene, pop-ups, files; the look of the button itself left out."""
    import slicer
    from PySide6 import QtWidgets

    widgets = {}
    for child in opened.widget.parent.findChildren(QtWidgets.QWidget):
        if child.objectName and child is not button:
            shown = {name: str(getattr(child, name)) for name in SEEN if hasattr(child, name)}
            widgets[path_of(child)] = (shown, child.isHidden())
    recorded = opened.application.recorded
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    slicer.mrmlScene.SetSaveToXMLString(0)  # or scenes saved from now on would have no scene file in them
    return {
        "widgets": widgets,
        "scene": slicer.mrmlScene.GetSceneXMLString(),
        "pop-ups": list(recorded.dialogs),
        "opened": list(recorded.opened),
        "job": id(opened.client.handle),
        "files": sorted((str(p), p.stat().st_size) for p in folder.rglob("*")),
    }


# -- what has to come before a click -------------------------------------------------------------------------------


def missing_packages(opened: Opened) -> None:
    """A package is missing until Install is clicked."""
    logic = opened.widget.logic
    logic.missingPackages = lambda: ["torch"]

    def install():
        logic.missingPackages = lambda: []
        return "Installed."

    logic.installPackages = install
    opened.widget._panel.refresh()


def choose_disc(opened: Opened) -> None:
    """The second disc of the table is chosen."""
    table = opened.ui.discTableView
    table.clicked.emit(table.model().index(1, 0))


def delete_disc(opened: Opened) -> None:
    """The second disc is deleted."""
    choose_disc(opened)
    opened.ui.deleteButton.click()


def undo_delete(opened: Opened) -> None:
    """... and comes back."""
    delete_disc(opened)
    opened.ui.undoButton.click()


def place_artery(opened: Opened) -> None:
    """The user has chosen an artery."""
    opened.widget.onVesselChosen("Artery", (2, 30, 30))
    opened.finish()


def choose_earlier(opened: Opened) -> None:
    """An earlier scan was chosen for the follow-up."""
    from Testing.slicer_stand_in.fixtures import add_head

    opened.widget._followUp.ui.earlierSelector.setCurrentNode(add_head("Earlier"))


def compare(opened: Opened) -> None:
    """Two scans were compared."""
    choose_earlier(opened)
    opened.widget._followUp.ui.compareButton.click()
    opened.client.finish(follow_up_result(opened.client.handle.job.volume))
    opened.widget._panel.run.on_timer()


def move_threshold(opened: Opened) -> None:
    """The threshold of delay is no longer the usual one."""
    opened.ui.lateSlider.value = 8.0


BEFORE: dict[str, Callable[[Opened], None]] = {
    "installButton": missing_packages,
    "cancelButton": lambda opened: opened.ui.applyButton.click(),
    "deleteButton": choose_disc,
    "undoButton": delete_disc,
    "redoButton": undo_delete,
    "findVesselsButton": place_artery,
    "resetThresholdsButton": move_threshold,
    "compareButton": choose_earlier,
    "growthCheckBox": compare,
    "nextChangeButton": compare,
    "changeReportButton": compare,
    "changeFolderButton": compare,
}


def answers(folder, dialogs: list) -> Callable[[str, str], object]:
    """Replies of file dialogs and questions (a folder with a case, a file to write), which ``dialogs`` records."""
    (folder / "cases").mkdir()
    write_volume(Volume(head_array(), TILTED, "HU"), folder / "cases" / "head.nrrd")
    folders = iter([folder / "cases", folder / "results", *([folder / "more"] * 20)])

    def ask(kind: str, text: str):
        dialogs.append((kind, text))
        if kind == "choose folder":
            chosen = next(folders)
            chosen.mkdir(exist_ok=True)
            return str(chosen)
        if kind == "save file":
            return str(folder / ("discs.csv" if "discs" in text.lower() else "saved.html"))
        return str(folder / "cases" / "head.nrrd") if kind == "open file" else 1

    return ask


@cache
def clicked_by_name() -> set[str]:
    """Buttons that the tests of the modules click by name, which say what has to change."""
    paths = [path for room in module_names() for path in files_in(ROOT / room / "Testing", "*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    loops = re.findall(r"for (\w+) in \(([^)]*)\):\n(?:\s+assert .*\n)*\s+\1\.click\(\)", text)
    one_by_one = "".join(names for _, names in loops)
    found = re.findall(r"\b(\w+)\.(?:click|toggle)\(\)", text) + re.findall(r"\"(\w+Button)\"", text)
    return {*found, *re.findall(r"ui\.(\w+)", one_by_one)}


class Clicker:
    """Opens a panel with a result when there is none that will do, clicks a button in it, and says what changed."""

    def __init__(self, application, module: str, new_folder: Callable, monkeypatch):  # noqa: F811
        self._application, self._module = application, module
        self._new_folder, self._monkeypatch = new_folder, monkeypatch
        self._opened: Opened | None = None

    def names(self) -> list[str]:
        """All buttons of the panel, from above."""
        self._open("")
        return list(panel_buttons(self._opened.widget))

    def fault(self, name: str) -> str:
        """What is wrong with a button; empty if clicking it changes something, here or in a test that names it."""
        if name.split(".")[1] in BEFORE or not self._button(name).enabled:
            self._open(name)
        button = self._button(name)
        elsewhere = name.split(".")[1] in clicked_by_name()
        if not button.enabled:
            return "" if elsewhere else f"{name} cannot be clicked"
        before = seen(self._opened, button, self._folder)
        button.click()
        self._application.app.processEvents()
        after = seen(self._opened, button, self._folder)
        if self._opened.widget._panel.run.is_running:
            self._open("")
        return "" if after != before or elsewhere else f"{name} changes nothing"

    def close(self) -> None:
        """The panel goes."""
        if self._opened is not None:
            self._application.close_widget(self._opened.widget)
            self._application.clear()

    def _button(self, name: str):
        return panel_buttons(self._opened.widget)[name]

    def _open(self, name: str) -> None:
        self.close()
        self._folder = self._new_folder("clicked")
        self._opened = open_panel(self._application, self._module, self._folder / "worker", self._monkeypatch)
        self._opened.run()
        BEFORE.get(name.partition(".")[2], lambda opened: None)(self._opened)
        recorded = self._application.recorded
        self._monkeypatch.setattr(recorded, "ask", answers(self._folder, recorded.dialogs))


@pytest.mark.slow
@pytest.mark.parametrize("module", CLINICAL)
def test_every_button_changes_what_a_user_sees(application, module, tmp_path_factory, monkeypatch):  # noqa: F811
    import slicer

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *args, **options: True)
    clicker = Clicker(application, module, tmp_path_factory.mktemp, monkeypatch)
    names = clicker.names()
    assert len(names) > 8
    faults = [fault for name in names if (fault := clicker.fault(name))]
    clicker.close()
    assert not faults, "; ".join(faults)


OF_NEURAXIS = [p for p in files_in(ROOT / "Neuraxis" / "Resources", "*.ui") if p.stem.startswith(("Neuraxis", "Batch"))]


@pytest.mark.parametrize("path", OF_NEURAXIS, ids=lambda path: path.name)
def test_buttons_of_the_neuraxis_module_are_clicked_by_its_own_tests(path):
    """By name: each is clicked in a test that says what has to change."""
    buttons = {w.get("name") for w in ElementTree.parse(path).iter("widget") if w.get("class") in BUTTONS}
    assert buttons - clicked_by_name() == set()
