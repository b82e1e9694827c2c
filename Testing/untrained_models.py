"""A hemorrhage model with random weights: everything works with it except the medicine."""

from __future__ import annotations

from pathlib import Path

from NeuraxisLib.models import write_model


def write_untrained_model(path: Path, size: int = 64, **changes) -> Path:
    """A small DR-UNet with the first random weights of seed 0; ``changes`` replace entries of the header."""
    import torch

    from HemorrhageSegLib.networks.drunet import DRUNet

    arguments = {"in_channels": 1, "base": 4}
    torch.manual_seed(0)
    header = {
        "name": path.stem,
        "title": "Untrained",
        "task": "hemorrhage",
        "architecture": {"name": "DRUNet", "arguments": arguments},
        "preprocessing": {
            "size": size,
            "margin": 0.05,
            "slab_mm": 5.0,
            "channels": [{"offset": 0, "low_hu": 0.0, "high_hu": 100.0}],
        },
        "labels": {"1": "Hemorrhage"},
        "threshold": 0.5,
        "min_component_ml": 0.1,
        "uncertainty": {},
        "training": {"data": "none"},
        "licence": "Apache-2.0",
        "notice": "Untrained; for tests only.",
        "scores": {},
        **changes,
    }
    write_model(path, DRUNet(**arguments).state_dict(), header)
    return path
