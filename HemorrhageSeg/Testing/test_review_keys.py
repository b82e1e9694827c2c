"""The keys of a panel on the stand-in: pressed in a window, silent in text fields, gone with the module."""

from __future__ import annotations

import pytest
from review_panel_support import (  # noqa: F401
    application,
    client,
    head,
    paint_bleed,
    rows,
    run,
    settle,
    stand_in,
    ui,
    widget,
)

from Testing.slicer_stand_in.fixtures import add_head


@pytest.fixture
def window(application, widget):  # noqa: F811
    """The main window on the screen, with the panel in it, as in Slicer."""
    from PySide6.QtTest import QTest

    window = application.main_window
    window.setCentralWidget(widget.parent)
    window.show()
    window.activateWindow()
    assert QTest.qWaitForWindowActive(window, 5000)
    application.app.processEvents()
    yield window
    window.takeCentralWidget()  # the window stays: one that was hidden gets no focus again off screen


def press(window, key, shift=False):
    """Press a key in whatever has the focus."""
    from PySide6 import QtCore, QtWidgets
    from PySide6.QtTest import QTest

    modifier = QtCore.Qt.ShiftModifier if shift else QtCore.Qt.NoModifier
    QTest.keyClick(QtWidgets.QApplication.focusWidget() or window, key, modifier)


def test_keys_do_what_their_buttons_do(application, widget, ui, head, window):  # noqa: F811
    window.setFocus()
    press(window, "n")
    assert widget.ui.statusLabel.text.startswith("Slice 15,")
    press(window, "o")
    assert widget.ui.overlayCheckBox.checked
    press(window, "o")
    assert not widget.ui.overlayCheckBox.checked
    paint_bleed(head)
    settle(application, widget)
    press(window, "u", shift=True)
    assert rows(widget)["Total volume"][0] == "6.00"
    press(window, "a", shift=True)
    assert ui.acceptButton.checked
    press(window, "a", shift=True)
    assert ui.acceptButton.checked, "the key accepts; it does not take back"


def test_a_key_goes_to_the_next_case(application, widget, client, head, window):  # noqa: F811
    other = add_head("Doe Jane")
    widget.ui.inputSelector.setCurrentNode(other)
    run(widget, client)
    window.setFocus()
    press(window, "a", shift=True)
    press(window, "n", shift=True)
    assert widget.ui.inputSelector.currentNode() is head
    press(window, "a", shift=True)
    press(window, "n", shift=True)
    assert widget.ui.inputSelector.currentNode() is head, "all are judged"


def test_keys_are_letters_in_a_text_field(application, widget, ui, window):  # noqa: F811
    ui.reviewCollapsibleButton.collapsed = False
    ui.commentLineEdit.setFocus()
    application.app.processEvents()
    assert ui.commentLineEdit.focus
    for key, shift in (("n", False), ("o", False), ("a", True)):
        press(window, key, shift)
    assert ui.commentLineEdit.text.lower() == "noa"
    assert not widget.ui.overlayCheckBox.checked and not ui.acceptButton.checked
    assert "Slice" not in widget.ui.statusLabel.text


def shortcuts(window):
    """Keys that are in force."""
    import qt

    return sorted(s.key.toString() for s in window.findChildren(qt.QShortcut) if s.enabled)


def test_keys_live_while_the_module_is_open(application, widget):  # noqa: F811
    window = application.main_window
    assert shortcuts(window) == ["N", "O", "Shift+A", "Shift+N", "Shift+U"]
    application.leave(widget)
    assert shortcuts(window) == []
    application.enter(widget)
    assert shortcuts(window) == ["N", "O", "Shift+A", "Shift+N", "Shift+U"]
    application.scene.Clear(0)
    assert len(shortcuts(window)) == 5


def test_tool_tips_name_the_keys_and_none_is_slicers_own(widget, ui):  # noqa: F811
    from NeuraxisLib.scene_review_keys import ACCEPT, NEXT_CASE, NEXT_SLICE, OVERLAY, UNDO

    for button, key in (
        (widget.ui.nextSliceButton, NEXT_SLICE), (widget.ui.overlayCheckBox, OVERLAY), (ui.acceptButton, ACCEPT),
        (ui.revertButton, UNDO), (ui.nextCaseButton, NEXT_CASE),
    ):  # fmt: skip
        assert button.toolTip.endswith(f"[{key}]")
    taken = {"B", "F", "V", "R", "G", "T", "[", "]", "{", "}", "Left", "Right", "Up", "Down", "Home", "End"}
    taken |= {f"Ctrl+{key}" for key in "FOSWH0123456BZYXCVA"}
    assert not taken & {ACCEPT, NEXT_CASE, NEXT_SLICE, OVERLAY, UNDO}
