"""What every provenance block says, whatever the task: of the software, and of the model that was used."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib import __version__

if TYPE_CHECKING:
    from NeuraxisLib.models import ModelFile


def software() -> dict[str, str]:
    """Versions of Neuraxis, Python and NumPy, and the kind of computer (never its name)."""
    return {
        "neuraxis": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def model_facts(model: ModelFile) -> dict[str, str]:
    """Which model file was used: names and digest, not the folder where it lies."""
    return {"name": model.name, "title": model.title, "file": model.path.name, "sha256": model.sha256}
