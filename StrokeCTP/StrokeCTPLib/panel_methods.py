"""Combo boxes of the panel: behind every entry stands a word of the parameter node."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from NeuraxisLib.translation import translator
from StrokeCTPLib import panel_choice

_ = translator(__name__)
#: Combo box that another part of the panel fills -> field of the parameter node.
FILLED_ELSEWHERE = {"familyComboBox": "family", "mapComboBox": "shownMap"}


def choices() -> dict[str, tuple[str, dict[Any, str]]]:
    """Combo box -> (field of the parameter node, value of the field -> what the panel calls it)."""
    return {
        "inputKindComboBox": (
            "inputKind",
            {"frames": _("Frames of the acquisition"), "maps": _("Maps of another program")},
        ),
        "genderComboBox": ("gender", {-1: _("not given"), 0: _("male"), 1: _("female")}),
        "deconvolutionComboBox": (
            "deconvolution",
            {
                "bsvd": _("Block-circulant SVD (bSVD)"),
                "osvd": _("Oscillation-limited SVD (oSVD)"),
                "ssvd": _("Standard SVD (sSVD)"),
                "tikhonov": _("Tikhonov"),
            },
        ),
        "residueComboBox": (
            "residue",
            {"gamma": _("Gamma distribution"), "exponential": _("Exponential"), "linear": _("Linear"), "box": _("Box")},
        ),
        "motionComboBox": ("motion", {"auto": _("Where the head has moved"), "on": _("Always"), "off": _("Never")}),
    }


class ChoiceBoxes:
    """Keeps combo boxes and the parameter node in step.

    Args:
        ui: the widgets of the .ui file, by name.
        parameters: gives the parameter node; None while the panel is closed.
    """

    def __init__(self, ui: Any, parameters: Callable[[], Any]):
        self._ui, self._parameters = ui, parameters
        self._choices = choices()
        for name, (field, titles) in self._choices.items():
            for value, title in titles.items():
                getattr(ui, name).addItem(title, value)
            self.bind(name, field)
        for name, field in FILLED_ELSEWHERE.items():
            self.bind(name, field)

    @property
    def source(self) -> Any:
        """The volume node that the result of the chosen input belongs to, or None."""
        return panel_choice.source_of(self._parameters())

    def choose(self, source: Any) -> None:
        """Choose the input that the result of a volume node was computed from."""
        panel_choice.choose_source(self._parameters(), source)

    def bind(self, name: str, field: str) -> None:
        """What is chosen in a combo box goes into a field of the parameter node; ``""`` where its data is None."""
        getattr(self._ui, name).connect("currentIndexChanged(int)", functools.partial(self._chosen, name, field))

    def refresh(self) -> None:
        """Show what the parameter node says."""
        for name, (field, titles) in self._choices.items():
            chosen = list(titles).index(getattr(self._parameters(), field))
            getattr(self._ui, name).setCurrentIndex(chosen)

    def _chosen(self, name: str, field: str, index: int | None = None) -> None:
        parameters, box = self._parameters(), getattr(self._ui, name)
        if parameters is not None and box.currentIndex >= 0:
            data = box.currentData
            setattr(parameters, field, "" if data is None else data)
