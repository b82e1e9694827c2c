"""Recipes: one TOML file says everything about a training run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NeuraxisLib.errors import InputError
from NeuraxisLib.preprocessing import SlicePreprocessing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SECTIONS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "": {"task": str, "name": str, "title": str},
    "architecture": {"name": str, "arguments": dict},
    "preprocessing": {"size": int, "margin": float, "slab_mm": float, "channels": list},
    "simulation": {"planted": int, "synthetic": int, "bank_size": int},
    "fitting": {
        "seed": int, "steps": int, "batch": int, "learning_rate": float, "weight_decay": float, "warmup": int,
        "ema": float, "precision": str, "validate_every": int, "keep_minutes": (int, float), "shares": dict,
        "bleeding_share": float, "outside_weight": float, "slice_weight": float,
    },
}


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; ``data`` is the resolved content, saved with every run."""

    data: dict[str, Any]

    @classmethod
    def read(cls, path: Path | str, overrides: tuple[str, ...] = ()) -> Recipe:
        """Read a TOML recipe and apply ``section.key=value`` overrides; InputError names an unknown key or type."""
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError:
            raise InputError(f"The recipe {Path(path).name} cannot be read; check its path.") from None
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"The recipe {Path(path).name} is not valid TOML: {error}.") from None
        for override in overrides:
            _override(data, override)
        _check(data)
        return cls(data)

    def __getitem__(self, section: str) -> Any:
        return self.data[section]

    @property
    def preprocessing(self) -> SlicePreprocessing:
        """The preprocessing that goes into the model file."""
        return SlicePreprocessing.from_dict(self.data["preprocessing"])


def _override(data: dict, override: str) -> None:
    key, separator, text = override.partition("=")
    section, _, name = key.rpartition(".")
    if not separator or name not in SECTIONS.get(section, {}):
        raise InputError(f"The override '{override}' names no recipe key; write section.key=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    (data[section] if section else data)[name] = value


def _check(data: dict) -> None:
    unknown = set(data) - set(SECTIONS) - set(SECTIONS[""])
    if unknown:
        raise InputError(f"The recipe holds an unknown key '{sorted(unknown)[0]}'; remove or correct it.")
    for section, keys in SECTIONS.items():
        values = data if not section else data.get(section, {})
        for name, kind in keys.items():
            label = f"{section}.{name}" if section else name
            if name not in values:
                raise InputError(f"The recipe lacks '{label}'; add it.")
            if not isinstance(values[name], kind) and not (kind is float and isinstance(values[name], int)):
                raise InputError(f"The recipe's '{label}' has the wrong type: {values[name]!r}.")
        if section and set(values) - set(keys):
            raise InputError(f"The recipe holds an unknown key '{section}.{sorted(set(values) - set(keys))[0]}'.")
