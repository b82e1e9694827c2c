"""What the recipes of head CT must keep, beyond types, ranges and choices."""

from __future__ import annotations

from NeuraxisLib.errors import InputError, ModelError
from Training.recipe import Recipe, check_numbers
from Training.recipe_keys import INPUT_CHANNELS


def check_heads(recipe: Recipe) -> None:
    """InputError unless the preprocessing can be and makes as many channels as the network takes."""
    slices = recipe.family.name == "slices"
    if "class_weights" in recipe["fitting"]:
        check_numbers("fitting.class_weights", recipe["fitting"]["class_weights"], 2)
    if recipe["simulation"]["bank_size"] % 8:
        raise InputError("The recipe's 'simulation.bank_size' must be a multiple of 8; correct it.")
    try:
        preprocessing = recipe.preprocessing
    except ModelError:
        raise InputError(
            "The recipe's 'preprocessing' cannot be: size must be a multiple of 32, every channel needs an offset "
            "and low_hu below high_hu; correct it."
            if slices
            else "The recipe's 'preprocessing' cannot be: spacing and patch need three numbers above 0, clip_hu two "
            "in rising order; correct it."
        ) from None
    architecture, channels = recipe["architecture"], len(preprocessing.channels) if slices else 1
    wanted = architecture["arguments"].get("in_channels", INPUT_CHANNELS.get(architecture["name"], 1))
    if wanted != channels:
        raise InputError(
            f"The recipe's network takes {wanted} channels but its preprocessing makes {channels}; make them equal."
        )
