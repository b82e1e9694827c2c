"""Combo boxes of the panel: behind every entry stands a word of the parameter node."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

#: Combo box -> (field of the parameter node, value of the field -> what the panel calls it).
CHOICES: dict[str, tuple[str, dict[Any, str]]] = {
    "inputKindComboBox": ("inputKind", {"frames": "Frames of the acquisition", "maps": "Maps of another program"}),
    "genderComboBox": ("gender", {-1: "not given", 0: "male", 1: "female"}),
    "deconvolutionComboBox": (
        "deconvolution",
        {
            "bsvd": "Block-circulant SVD (bSVD)",
            "osvd": "Oscillation-limited SVD (oSVD)",
            "ssvd": "Standard SVD (sSVD)",
            "tikhonov": "Tikhonov",
        },
    ),
    "residueComboBox": (
        "residue",
        {"gamma": "Gamma distribution", "exponential": "Exponential", "linear": "Linear", "box": "Box"},
    ),
    "motionComboBox": ("motion", {"auto": "Where the head has moved", "on": "Always", "off": "Never"}),
}


class ChoiceBoxes:
    """Keeps combo boxes and the parameter node in step.

    Args:
        ui: the widgets of the .ui file, by name.
        parameters: gives the parameter node; None while the panel is closed.
    """

    def __init__(self, ui: Any, parameters: Callable[[], Any]):
        self._ui, self._parameters = ui, parameters
        for name, (field, titles) in CHOICES.items():
            for value, title in titles.items():
                getattr(ui, name).addItem(title, value)
            self.bind(name, field)

    def bind(self, name: str, field: str) -> None:
        """What is chosen in a combo box goes into a field of the parameter node; ``""`` where its data is None."""
        getattr(self._ui, name).connect("currentIndexChanged(int)", functools.partial(self._chosen, name, field))

    def refresh(self) -> None:
        """Show what the parameter node says."""
        for name, (field, titles) in CHOICES.items():
            chosen = list(titles).index(getattr(self._parameters(), field))
            getattr(self._ui, name).setCurrentIndex(chosen)

    def _chosen(self, name: str, field: str, index: int | None = None) -> None:
        parameters, box = self._parameters(), getattr(self._ui, name)
        if parameters is not None and box.currentIndex >= 0:
            data = box.currentData
            setattr(parameters, field, "" if data is None else data)
