"""The training family of disc networks: what a recipe of kind ``"sagittal"`` may say and where its parts are."""

from __future__ import annotations

import math

from Training.families import Family
from Training.recipe_keys import NUMBER

FAMILY = Family(
    name="sagittal",
    task="discs",
    data="Training.discs:spines",
    scores="Training.discs_scores:disc_scores",
    preprocessing="SpineDiscLabelLib.preprocessing:SagittalPreprocessing.from_dict",
    losses="Training.losses_discs:LOSSES",
    keys={
        "preprocessing": {
            "pixel_mm": NUMBER, "tile": int, "overlap": int, "slab_mm": NUMBER, "offsets_mm": list,
            "normalisation": str, "frame": str, "sigma_mm": NUMBER, "sigma_x_mm": NUMBER, "first_disc": int,
            "levels": int, "any_disc": bool,
        },
        "simulation": {"spines": int},
        "fitting": {"near_weight": NUMBER, "absent": bool},
    },
    defaults={
        "simulation": {"spines": 0}, "sampling": {"augmentation": "windows"},
        "fitting": {"near_weight": 4.0, "absent": True},
    },
    choices={
        "fitting.loss": ("joints_mse", "disc_mse", "disc_mse_quarter"),
        "sampling.augmentation": ("windows", "published", "none"),
        "preprocessing.normalisation": ("percentile", "minmax"),
        "preprocessing.frame": ("display", "published"),
    },
    ranges={
        "preprocessing.pixel_mm": (0.1, 10), "preprocessing.tile": (64, 2048), "simulation.spines": (0, 99_999),
        "fitting.near_weight": (0, math.inf),
    },
)  # fmt: skip
