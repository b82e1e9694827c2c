"""Training of stroke networks on perfusion maps: what its recipes may say, and where its parts are."""

from __future__ import annotations

import math

from NeuraxisLib.errors import InputError, ModelError
from StrokeCTPLib.map_preprocessing import SHOWN
from StrokeCTPLib.networks.configurations import MAPS
from Training.families import Family
from Training.recipe import Recipe, check_numbers
from Training.recipe_keys import NUMBER

FAMILY = Family(
    name="maps",
    task="stroke",
    data="Training.stroke_data:perfusion_maps",
    scores="Training.stroke_scores:class_scores",
    preprocessing="StrokeCTPLib.map_preprocessing:MapPreprocessing.from_dict",
    losses="Training.losses_stroke:LOSSES",
    keys={
        "preprocessing": {
            "maps": list, "scalars": list, "size": int, "shown": str, "pixel_mm": NUMBER, "ranges": dict,
            "subtract_mean": bool, "tile": int,
        },
        "sampling": {"lesion_share": NUMBER, "background_tiles": NUMBER, "legacy_missing_nihss": bool},
        "fitting": {
            "class_weights": list, "alpha": NUMBER, "gamma": NUMBER, "image_weights": bool, "regime": str,
            "unfreezing": str, "penalty_l1": NUMBER, "penalty_l2": NUMBER, "max_norm": NUMBER, "monitor": str,
        },
    },
    defaults={
        "sampling": {"lesion_share": 0.0, "background_tiles": 0.02, "legacy_missing_nihss": False},
        "fitting": {
            "loss": "focal_tversky", "alpha": 0.7, "gamma": 1.33, "image_weights": True, "regime": "U",
            "unfreezing": "blocks", "penalty_l1": 0.0, "penalty_l2": 0.0, "max_norm": 0.0, "monitor": "dice",
        },
    },
    choices={
        "preprocessing.shown": SHOWN,
        "sampling.augmentation": ("none", "stavanger", "maps"),
        "fitting.loss": ("focal_tversky", "dice_ce"),
        "fitting.regime": ("F", "U", "G"),
        "fitting.unfreezing": ("blocks", "legacy_half", "full"),
        "fitting.monitor": ("dice", "loss"),
    },
    ranges={
        "sampling.lesion_share": (0, 1), "sampling.background_tiles": (0, 1), "fitting.alpha": (0, 1),
        "fitting.gamma": (0.1, 10), "fitting.penalty_l1": (0, 1), "fitting.penalty_l2": (0, 1),
        "fitting.max_norm": (0, math.inf),
    },
    optional=(
        "preprocessing.scalars", "preprocessing.pixel_mm", "preprocessing.ranges", "preprocessing.subtract_mean",
        "preprocessing.tile", "fitting.class_weights",
    ),
    check="Training.stroke_family:check",
    regime="Training.stroke_regime:StrokeRegime",
    start_from={"vgg16": "Training.stroke_regime:vgg16_parts"},
)  # fmt: skip


def check(recipe: Recipe) -> None:
    """InputError unless the network reads what the preprocessing makes, and the loss has a weight for every class."""
    try:
        shown = recipe.preprocessing
    except ModelError:
        raise InputError(
            "The recipe's 'preprocessing' cannot be: maps and scalars must be known names, size and tile multiples of "
            "32 of which the tile divides the size, ranges [low, high]; correct it."
        ) from None
    name, arguments = recipe["architecture"]["name"], recipe["architecture"]["arguments"]
    made = {"maps": list(shown.maps), "scalars": list(shown.scalars), "map_channels": shown.map_channels}
    compact = name.startswith("Compact")
    taken = {"maps": list(MAPS), "scalars": [], "map_channels": 1 if compact else 3, **arguments}
    for key, value in made.items():
        if taken[key] != value:
            raise InputError(
                f"The recipe's network takes {taken[key]} for '{key}' but its preprocessing makes {value}; make them "
                "equal."
            )
    if shown.scalars and taken.get("size", 256 if compact else 512) != shown.side:
        raise InputError("The recipe's network and its tiles differ in size; with scalars they must be equal.")
    classes = max(2, taken.get("out_channels", 3))
    if "class_weights" in recipe["fitting"]:
        check_numbers("fitting.class_weights", recipe["fitting"]["class_weights"], classes)
