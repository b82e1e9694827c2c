"""Recipes: one TOML file says everything about a training run."""

from __future__ import annotations

import math
import sys
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from NeuraxisLib.errors import InputError
from Training.families import NETWORKS, Family, family_of, found
from Training.recipe_keys import CHOICES, NUMBER, OPTIONAL, RANGES, SOURCES, Keys, Kinds

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["SOURCES", "Recipe"]

#: Types of values in words.
_KINDS: dict[type, str] = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list [...]",
    dict: "a table {key = value}",
}  # fmt: skip
#: Where the recipes lie that come with the package.
_SHIPPED = Path(__file__).resolve().parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """A recipe; ``data`` is the resolved content with every default filled in, saved with every run."""

    data: dict[str, Any]

    def __post_init__(self) -> None:
        data = deepcopy(self.data)
        data.setdefault("preset", "paper")
        data.setdefault("uncertainty", "entropy")
        for section, values in _family(data).all_defaults.items():
            if isinstance(data.setdefault(section, {}), dict):
                data[section] = {**deepcopy(values), **data[section]}
        object.__setattr__(self, "data", data)

    @classmethod
    def read(cls, path: Path | str, overrides: tuple[str, ...] = ()) -> Recipe:
        """Read and check a TOML recipe.

        A recipe may hold a section ``[sane]`` with other values for keys whose published number is a known fault, as
        ``fitting.learning_rate = 3e-4``; ``preset = "sane"`` lays them over the published ones.

        Args:
            path: the file, or the name of a recipe that comes with the package, without folder and ending.
            overrides: ``section.key=value`` each, the value as TOML writes it (quotes may be left out); a key of an
                inline table is named with one more dot, as in ``architecture.arguments.base=8``.

        Raises:
            InputError: names the file, the key and what is wrong with it.
        """
        name = Path(path).name
        if str(path) == name and not Path(path).exists() and (_SHIPPED / f"{name}.toml").is_file():
            path = _SHIPPED / f"{name}.toml"
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError:
            raise InputError(f"The recipe '{name}' cannot be read; check its path.") from None
        except ValueError as error:  # not TOML, or not even text
            raise InputError(f"The recipe '{name}' is not valid TOML ({error}); correct it.") from None
        sane = data.pop("sane", None)
        for override in overrides:
            _override(data, override)
        if data.get("preset") == "sane":
            if not isinstance(sane, dict):
                raise InputError(f"The recipe '{name}' has no preset 'sane'; leave the preset out.")
            _overlay(data, sane)
            for override in overrides:  # what the user says has the last word
                _override(data, override)
        recipe = cls(data)
        _check(recipe.data)
        return recipe

    def __getitem__(self, section: str) -> Any:
        return self.data[section]

    @property
    def family(self) -> Family:
        """What kind of training this is, by ``[preprocessing] kind``; slices of heads where there is none."""
        return _family(self.data)

    @property
    def preprocessing(self) -> Any:
        """The preprocessing that goes into the model file, of its family's kind."""
        return found(self.family.preprocessing)(self.data["preprocessing"])


def _family(data: dict) -> Family:
    """The family that a recipe names."""
    given = data.get("preprocessing")
    return family_of(given.get("kind", "slices") if isinstance(given, dict) else "slices")


def _overlay(data: dict, values: dict) -> None:
    """Lay nested ``values`` over ``data``, in place; inline tables (network arguments) are merged too."""
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(data.get(name), dict):
            _overlay(data[name], value)
        else:
            data[name] = value


def _override(data: dict, override: str) -> None:
    """Set one value from ``section.key=value`` (or ``section.key.entry=value`` in an inline table)."""
    key, separator, text = override.partition("=")
    names = key.strip().split(".")
    section = names[0] if len(names) > 1 else ""
    sections = _family(data).sections
    kind = sections.get(section, {}).get(names[-1] if len(names) < 3 else names[1])
    if not separator or kind is None or len(names) > 3 or (len(names) == 3 and kind is not dict):
        raise InputError(f"The override '{override}' names no recipe key; {_alike(key.strip(), sections)}.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for name in names[:-1]:
        data = data.setdefault(name, {})
        if not isinstance(data, dict):
            raise InputError(f"The recipe's '{name}' is not a section, so '{override}' cannot be set; correct it.")
    data[names[-1]] = value


def _alike(key: str, sections: dict[str, Keys]) -> str:
    """What may have been meant by a key that there is not."""
    keys = [f"{section}.{name}" if section else name for section, names in sections.items() for name in names]
    close = get_close_matches(key, keys, n=1)
    return f"perhaps {close[0]} is meant" if close else "write section.key=value"


def _check(data: dict) -> None:
    """InputError for the first key that is unknown, missing or of the wrong type, or value that cannot be."""
    family = _family(data)
    sections = family.sections
    unknown = set(data) - set(sections) - set(sections[""])
    if unknown:
        raise InputError(f"The recipe holds an unknown key '{sorted(unknown)[0]}'; remove or correct it.")
    for section, keys in sections.items():
        values = data if not section else data.get(section, {})
        if not isinstance(values, dict):
            raise InputError(f"The recipe's '{section}' is not a section; write it as [{section}].")
        _check_section(section, values, keys, family)
    _check_lists(data["fitting"])
    _check_shares(data["fitting"]["shares"])
    if data["task"] != family.task:
        raise InputError(
            f"The recipe's 'preprocessing.kind' is one of the task '{family.task}', not '{data['task']}'; correct it."
        )
    if family.check:
        found(family.check)(Recipe(data))


def _check_section(section: str, values: dict, keys: Keys, family: Family) -> None:
    for name, kind in keys.items():
        label = f"{section}.{name}" if section else name
        if name in values:
            _check_value(label, values[name], kind, family)
        elif label not in (*OPTIONAL, *family.optional):
            raise InputError(f"The recipe lacks '{label}'; add it.")
    if section and set(values) - set(keys):
        extra = sorted(set(values) - set(keys))[0]
        raise InputError(f"The recipe holds an unknown key '{section}.{extra}'; remove or correct it.")


def _check_value(label: str, value: Any, kind: Kinds, family: Family) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = _KINDS[kind if isinstance(kind, type) else float]
        raise InputError(f"The recipe's '{label}' has the wrong type: {value!r}; give {wanted}.")
    low, high = {**RANGES, **family.ranges}.get(label, (-math.inf, math.inf))
    if isinstance(value, NUMBER) and not low <= value <= high:
        raise InputError(f"The recipe's '{label}' is {value}; choose a number from {low:g} to {high:g}.")
    choices = {"task": tuple(NETWORKS), **CHOICES, **family.choices}
    if label in choices and value not in choices[label]:
        raise InputError(f"The recipe's '{label}' is '{value}'; choose one of: {', '.join(choices[label])}.")


def _check_lists(fitting: dict) -> None:
    """Lists of numbers of the right length, and of names."""
    check_numbers("fitting.betas", fitting["betas"], 2, highest=1.0)
    if not all(isinstance(name, str) and name for name in fitting["frozen"]):
        raise InputError("The recipe's 'fitting.frozen' must list beginnings of parameter names; correct it.")


def check_numbers(label: str, values: list, count: int, highest: float = math.inf) -> None:
    """InputError unless a recipe's list holds ``count`` numbers of 0 to ``highest``."""
    numbers = [v for v in values if isinstance(v, NUMBER) and not isinstance(v, bool) and 0 <= v <= highest]
    if len(values) != count or len(numbers) != count:
        words = {2: "two", 3: "three", 4: "four"}.get(count, str(count))
        raise InputError(f"The recipe's '{label}' is {values}; give {words} numbers of 0 or more.")


def _check_shares(shares: dict) -> None:
    for source, share in shares.items():
        if source not in SOURCES or not isinstance(share, NUMBER) or isinstance(share, bool) or not 0 <= share < 1e6:
            raise InputError(
                f"The recipe's 'fitting.shares' cannot hold {source} = {share!r}; "
                f"give a share of 0 or more to each of: {', '.join(SOURCES)}."
            )
    if not sum(shares.values()):
        raise InputError("The recipe's 'fitting.shares' are all 0; give at least one source of heads a share.")
