"""What a recipe may say: keys with their types, defaults, ranges and choices.

First what all recipes share; then what those of head CT add. Other families (:mod:`Training.families`) bring theirs.
"""

from __future__ import annotations

import math
from typing import Any

from NeuraxisLib.uncertainty_methods import METHODS

Kinds = type | tuple[type, ...]
Keys = dict[str, Kinds]
Range = tuple[float, float]
NUMBER = (int, float)

# -- all recipes -----------------------------------------------------------------------------------------------

#: Section -> key -> type of its value. Every key is required, but those of :data:`DEFAULTS` and :data:`OPTIONAL`.
SECTIONS: dict[str, Keys] = {
    "": {"task": str, "name": str, "title": str, "preset": str, "uncertainty": str},
    "architecture": {"name": str, "arguments": dict},
    "preprocessing": {"kind": str},
    "sampling": {"augmentation": str},
    "fitting": {
        "seed": int, "steps": int, "batch": int, "accumulate": int, "learning_rate": NUMBER, "weight_decay": NUMBER,
        "warmup": int, "ema": NUMBER, "precision": str, "validate_every": int, "keep_minutes": NUMBER,
        "early_stop": int, "shares": dict, "loss": str, "optimiser": str, "betas": list, "epsilon": NUMBER,
        "momentum": NUMBER, "schedule": str, "schedule_every": int, "schedule_factor": NUMBER, "schedule_patience": int,
        "schedule_at": list, "clip": NUMBER, "clip_value": NUMBER, "frozen": list,
    },
}  # fmt: skip
#: Values of keys that a recipe may leave out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "sampling": {"augmentation": "none"},
    "fitting": {
        "accumulate": 1, "early_stop": 0, "shares": {"store": 1.0}, "optimiser": "adamw", "betas": [0.9, 0.999],
        "epsilon": 1e-8, "momentum": 0.9, "schedule": "cosine", "schedule_every": 1, "schedule_factor": 0.1,
        "schedule_patience": 10, "schedule_at": [], "clip": 3.0, "clip_value": 0.0, "frozen": [],
    },
}  # fmt: skip
#: What a text may say.
CHOICES: dict[str, tuple[str, ...]] = {
    "preset": ("paper", "sane"),
    "uncertainty": tuple(name for name in METHODS if name != "ensemble"),
    "fitting.precision": ("fp32", "bf16", "fp16"),
    "fitting.optimiser": ("adam", "adamw", "sgd", "rmsprop"),
    "fitting.schedule": ("constant", "cosine", "step", "milestones", "poly", "plateau"),
}
#: Keys that may be missing and stay so.
OPTIONAL = ("preset", "uncertainty", "preprocessing.kind")
#: Lowest and highest value of a number.
RANGES: dict[str, Range] = {
    "fitting.seed": (0, 2**32 - 1), "fitting.steps": (1, math.inf), "fitting.batch": (1, 4096),
    "fitting.accumulate": (1, 4096), "fitting.learning_rate": (0, 1), "fitting.weight_decay": (0, 1),
    "fitting.warmup": (0, math.inf), "fitting.ema": (0, 1), "fitting.validate_every": (1, math.inf),
    "fitting.keep_minutes": (0, math.inf), "fitting.early_stop": (0, math.inf), "fitting.clip": (0, math.inf),
    "fitting.clip_value": (0, math.inf), "fitting.epsilon": (0, 1), "fitting.momentum": (0, 1),
    "fitting.schedule_every": (1, math.inf), "fitting.schedule_factor": (0, 1),
    "fitting.schedule_patience": (0, math.inf),
}  # fmt: skip
#: Where samples may come from: planted and synthetic heads are simulated, real ones have slice labels, store is
#: ``--store``.
SOURCES = ("planted", "synthetic", "real", "store")

# -- recipes of head CT ----------------------------------------------------------------------------------------

#: What they say beside the above.
HEADS: dict[str, Keys] = {
    "simulation": {"planted": int, "synthetic": int, "bank_size": int},
    "sampling": {
        "crops": int, "positive": NUMBER, "negative": NUMBER, "legacy_negatives": bool, "legacy_label_shrink": bool,
    },
    "fitting": {
        "bleeding_share": NUMBER, "outside_weight": NUMBER, "slice_weight": NUMBER, "pixel_weight": NUMBER,
        "class_weights": list, "smooth": NUMBER,
    },
}  # fmt: skip
#: The section [preprocessing] of a network that reads slices.
SLICE_PREPROCESSING: Keys = {
    "size": int, "margin": NUMBER, "slab_mm": NUMBER, "channels": list, "normalisation": str, "brain_only": bool,
}  # fmt: skip
#: The section [preprocessing] of a network that reads patches of a volume (kind = "volume").
VOLUME_PREPROCESSING: Keys = {
    "spacing_mm": list, "clip_hu": list, "mean_hu": NUMBER, "std_hu": NUMBER, "patch": list, "overlap": NUMBER,
    "padding_hu": NUMBER,
}  # fmt: skip
HEAD_DEFAULTS: dict[str, dict[str, Any]] = {
    "simulation": {"planted": 0, "synthetic": 0, "bank_size": 256},
    "sampling": {
        "augmentation": "head", "crops": 4, "positive": 1, "negative": 1, "legacy_negatives": False,
        "legacy_label_shrink": False,
    },
    "fitting": {
        "bleeding_share": 0.5, "outside_weight": 0.1, "slice_weight": 0.5, "pixel_weight": 4.0, "loss": "bleeding",
    },
}  # fmt: skip
HEAD_CHOICES: dict[str, tuple[str, ...]] = {
    "preprocessing.kind": ("slices", "volume"),
    "preprocessing.normalisation": ("window", "zscore"),
    "sampling.augmentation": ("head", "none", "hemseg", "slex", "standard"),
    "fitting.loss": (
        "bleeding", "bce", "weighted_ce", "slex", "slex_expanded", "slex_bleeding", "dice", "dice_ce", "dice_bce",
        "legacy_mean_dice",
    ),
}  # fmt: skip
#: Keys for which the preprocessing or the loss fills in its own default.
HEAD_OPTIONAL = (
    "preprocessing.normalisation", "preprocessing.brain_only", "preprocessing.padding_hu", "preprocessing.overlap",
    "fitting.class_weights", "fitting.smooth",
)  # fmt: skip
HEAD_RANGES: dict[str, Range] = {
    "preprocessing.std_hu": (1e-6, math.inf), "preprocessing.overlap": (0, 0.95),
    "simulation.planted": (0, 99_999), "simulation.synthetic": (0, 99_999), "simulation.bank_size": (32, 1024),
    "sampling.crops": (1, 1024), "sampling.positive": (0, math.inf), "sampling.negative": (0, math.inf),
    "fitting.bleeding_share": (0, 1), "fitting.outside_weight": (0, 1), "fitting.slice_weight": (0, math.inf),
    "fitting.pixel_weight": (0, math.inf),
}  # fmt: skip
#: Input channels of the networks that do not take one where ``in_channels`` is not given.
INPUT_CHANNELS = {"SLEXNet": 3, "SLEXNetMultiSlice": 5, "MCGUNet": 3}
