"""Recipes: one TOML file says everything about a training run."""

from __future__ import annotations

import math
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.preprocessing import SlicePreprocessing
from NeuraxisLib.task import TASKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kinds = type | tuple[type, ...]
NUMBER = (int, float)

#: Section -> key -> type of its value. Every key is required, but those of :data:`DEFAULTS`.
SECTIONS: dict[str, dict[str, Kinds]] = {
    "": {"task": str, "name": str, "title": str},
    "architecture": {"name": str, "arguments": dict},
    "preprocessing": {"size": int, "margin": NUMBER, "slab_mm": NUMBER, "channels": list},
    "simulation": {"planted": int, "synthetic": int, "bank_size": int},
    "fitting": {
        "seed": int, "steps": int, "batch": int, "learning_rate": NUMBER, "weight_decay": NUMBER, "warmup": int,
        "ema": NUMBER, "precision": str, "validate_every": int, "keep_minutes": NUMBER, "shares": dict,
        "bleeding_share": NUMBER, "outside_weight": NUMBER, "slice_weight": NUMBER,
        "loss": str, "schedule": str, "clip": NUMBER,
    },
}  # fmt: skip
#: Values of keys that a recipe may leave out.
DEFAULTS: dict[str, dict[str, Any]] = {"fitting": {"loss": "bleeding", "schedule": "cosine", "clip": 3.0}}
#: What a text may say.
CHOICES: dict[str, tuple[str, ...]] = {
    "task": tuple(TASKS),
    "fitting.precision": ("fp32", "bf16"),
    "fitting.loss": ("bleeding", "legacy_mean_dice"),
    "fitting.schedule": ("cosine", "constant"),
}
#: Lowest and highest value of a number.
RANGES: dict[str, tuple[float, float]] = {
    "simulation.planted": (0, 99_999), "simulation.synthetic": (0, 99_999), "simulation.bank_size": (32, 1024),
    "fitting.seed": (0, 2**32 - 1), "fitting.steps": (1, math.inf), "fitting.batch": (1, 4096),
    "fitting.learning_rate": (0, 1), "fitting.weight_decay": (0, 1), "fitting.warmup": (0, math.inf),
    "fitting.ema": (0, 1), "fitting.validate_every": (1, math.inf), "fitting.keep_minutes": (0, math.inf),
    "fitting.bleeding_share": (0, 1), "fitting.outside_weight": (0, 1), "fitting.slice_weight": (0, math.inf),
    "fitting.clip": (0, math.inf),
}  # fmt: skip
SOURCES = ("planted", "synthetic", "real")


@dataclass(frozen=True)
class Recipe:
    """A recipe; ``data`` is the resolved content with every default filled in, saved with every run."""

    data: dict[str, Any]

    def __post_init__(self) -> None:
        data = deepcopy(self.data)
        for section, values in DEFAULTS.items():
            if isinstance(data.get(section), dict):
                data[section] = {**values, **data[section]}
        object.__setattr__(self, "data", data)

    @classmethod
    def read(cls, path: Path | str, overrides: tuple[str, ...] = ()) -> Recipe:
        """Read and check a TOML recipe.

        Args:
            path: the file.
            overrides: ``section.key=value`` each, the value as TOML writes it (quotes may be left out); a key of an
                inline table is named with one more dot, as in ``architecture.arguments.base=8``.

        Raises:
            InputError: names the file, the key and what is wrong with it.
        """
        name = Path(path).name
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError:
            raise InputError(f"The recipe '{name}' cannot be read; check its path.") from None
        except ValueError as error:  # not TOML, or not even text
            raise InputError(f"The recipe '{name}' is not valid TOML ({error}); correct it.") from None
        for override in overrides:
            _override(data, override)
        recipe = cls(data)
        _check(recipe.data)
        return recipe

    def __getitem__(self, section: str) -> Any:
        return self.data[section]

    @property
    def preprocessing(self) -> SlicePreprocessing:
        """The preprocessing that goes into the model file."""
        return SlicePreprocessing.from_dict(self.data["preprocessing"])


def _override(data: dict, override: str) -> None:
    """Set one value from ``section.key=value`` (or ``section.key.entry=value`` in an inline table)."""
    key, separator, text = override.partition("=")
    names = key.strip().split(".")
    section = names[0] if len(names) > 1 else ""
    kind = SECTIONS.get(section, {}).get(names[-1] if len(names) < 3 else names[1])
    if not separator or kind is None or len(names) > 3 or (len(names) == 3 and kind is not dict):
        raise InputError(f"The override '{override}' names no recipe key; write section.key=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for name in names[:-1]:
        data = data.setdefault(name, {})
        if not isinstance(data, dict):
            raise InputError(f"The recipe's '{name}' is not a section, so '{override}' cannot be set; correct it.")
    data[names[-1]] = value


def _check(data: dict) -> None:
    """InputError for the first key that is unknown, missing or of the wrong type, or value that cannot be."""
    unknown = set(data) - set(SECTIONS) - set(SECTIONS[""])
    if unknown:
        raise InputError(f"The recipe holds an unknown key '{sorted(unknown)[0]}'; remove or correct it.")
    for section, keys in SECTIONS.items():
        values = data if not section else data.get(section, {})
        if not isinstance(values, dict):
            raise InputError(f"The recipe's '{section}' is not a section; write it as [{section}].")
        for name, kind in keys.items():
            label = f"{section}.{name}" if section else name
            if name not in values:
                raise InputError(f"The recipe lacks '{label}'; add it.")
            _check_value(label, values[name], kind)
        if section and set(values) - set(keys):
            extra = sorted(set(values) - set(keys))[0]
            raise InputError(f"The recipe holds an unknown key '{section}.{extra}'; remove or correct it.")
    _check_shares(data["fitting"]["shares"])
    _check_images(data)


def _check_value(label: str, value: Any, kind: Kinds) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"The recipe's '{label}' has the wrong type: {value!r}; correct it.")
    low, high = RANGES.get(label, (-math.inf, math.inf))
    if label in RANGES and not low <= value <= high:
        raise InputError(f"The recipe's '{label}' is {value}; choose a number from {low:g} to {high:g}.")
    if label in CHOICES and value not in CHOICES[label]:
        raise InputError(f"The recipe's '{label}' is '{value}'; choose one of: {', '.join(CHOICES[label])}.")


def _check_shares(shares: dict) -> None:
    for source, share in shares.items():
        if source not in SOURCES or not isinstance(share, NUMBER) or isinstance(share, bool) or not 0 <= share < 1e6:
            raise InputError(
                f"The recipe's 'fitting.shares' cannot hold {source} = {share!r}; "
                f"give a share of 0 or more to each of: {', '.join(SOURCES)}."
            )
    if not sum(shares.values()):
        raise InputError("The recipe's 'fitting.shares' are all 0; give at least one source of heads a share.")


def _check_images(data: dict) -> None:
    """Preprocessing that works, with as many channels as the network takes."""
    if data["simulation"]["bank_size"] % 8:
        raise InputError("The recipe's 'simulation.bank_size' must be a multiple of 8; correct it.")
    try:
        channels = len(SlicePreprocessing.from_dict(data["preprocessing"]).channels)
    except ModelError:
        raise InputError(
            "The recipe's 'preprocessing' cannot be: size must be a multiple of 32, every channel needs an offset "
            "and low_hu below high_hu; correct it."
        ) from None
    wanted = data["architecture"]["arguments"].get("in_channels", 1)
    if wanted != channels:
        raise InputError(
            f"The recipe's network takes {wanted} channels but its preprocessing makes {channels}; make them equal."
        )
