"""The jobs of a sweep: each recipe with each combination of values, on each fold."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from NeuraxisLib.batch_cases import folder_names
from NeuraxisLib.errors import InputError
from NeuraxisLib.input_digest import input_stamp
from Training.recipe import Recipe


@dataclass(frozen=True)
class SweepJob:
    """One training of a sweep.

    Attributes:
        name: tells it from the others; also of its run folder and its model file.
        setting: the same without the fold: jobs of one setting are averaged.
        recipe: as it was given.
        values: key -> value, of the keys that vary.
        fold: what it is judged on; None without folds.
        arguments: of :mod:`Training.train`, without run folder and model file.
        mark: another mark means another training.
    """

    name: str
    setting: str
    recipe: str
    values: Mapping[str, str]
    fold: int | None
    arguments: tuple[str, ...]
    mark: str

    def command(self, output: Path) -> list[str]:
        """The arguments of :mod:`Training.train`, for a sweep in this folder."""
        return [*self.arguments, str(self.model(output)), "--run", str(self.run(output))]

    def run(self, output: Path) -> Path:
        """The run folder."""
        return output / self.name

    def model(self, output: Path) -> Path:
        """The model file."""
        return output / f"{self.name}.safetensors"


def jobs_of(options: argparse.Namespace, shared: Mapping[str, Any]) -> list[SweepJob]:
    """The jobs that a command line means, every recipe read and checked.

    Args:
        options: of :func:`Training.sweep.parse`.
        shared: name -> value of the options that every run gets as they are.

    Raises:
        InputError: a recipe, value or split that cannot be, or recipes whose scores cannot be compared.
    """
    axes = values_of(options.set)
    folds = _folds(options, shared.get("store"))
    recipes = [_place(recipe) for recipe in options.recipes]
    _check_names(recipes)
    found: list[tuple[Recipe, SweepJob]] = []
    for recipe, combination, fold in itertools.product(recipes, itertools.product(*axes.values()), folds):
        given = dict(zip(axes, combination))
        read = Recipe.read(recipe, tuple(f"{key}={value}" for key, value in given.items()))
        varied = {key: value for key, value in given.items() if len(axes[key]) > 1}
        words = [Path(recipe).stem, *(f"{key.rpartition('.')[2]}={value}" for key, value in varied.items())]
        arguments = _arguments(recipe, given, fold, options.folds, shared)
        mark = _mark(read, arguments, shared.get("store"))
        name = "-".join([*words, *([] if fold is None else [f"fold{fold}"])])
        found.append((read, SweepJob(name, " ".join(words), Path(recipe).stem, varied, fold, arguments, mark)))
    _check_comparable([read for read, _ in found])
    return _renamed([job for _, job in found])


def values_of(texts: Sequence[str]) -> dict[str, list[str]]:
    """``["fitting.batch=2,4"]`` as key -> values; commas within brackets and quotes part nothing."""
    axes: dict[str, list[str]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        parts = _parts(values)
        if not (key.strip() and equals and all(parts)):
            raise InputError(f"'{text[:80]}' is not of the form section.key=value,value; correct --set.")
        if key.strip() in axes:
            raise InputError(f"'{key.strip()}' is given twice; give all its values in one --set.")
        axes[key.strip()] = list(dict.fromkeys(parts))
    return axes


def _parts(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote or letter in "\"'":
            quote = "" if letter == quote else quote or letter
        depth += (letter in "[{") - (letter in "]}") if not quote else 0
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _folds(options: argparse.Namespace, store: Path | None) -> list[int | None]:
    """The folds to judge on; InputError if the store does not have them."""
    if options.folds is None:
        return [None]
    if options.folds < 2:
        raise InputError(f"{options.folds} folds cannot be; ask for 2 or more.")
    if store is None:
        raise InputError("Folds are splits of a store; give one with --store (see 'prepare --folds').")
    from Training.store import Store

    with Store(store) as opened:
        opened.of_split(*(f"fold{number}" for number in range(options.folds)))
    return list(range(options.folds))


def _place(recipe: Path) -> str:
    """A recipe as another process finds it: its whole path, or the bare name of one that comes along."""
    return str(recipe.absolute()) if recipe.exists() else str(recipe)


def _check_names(recipes: list[str]) -> None:
    stems = [Path(recipe).stem for recipe in recipes]
    twice = [stem for stem in stems if stems.count(stem) > 1]
    if twice:
        raise InputError(f"Two recipes are called '{twice[0]}'; rename one of them.")


def _check_comparable(recipes: list[Recipe]) -> None:
    families = list(dict.fromkeys(recipe.family.name for recipe in recipes))
    if len(families) > 1:
        raise InputError(
            f"Scores of recipes of the kinds '{families[0]}' and '{families[1]}' cannot be compared; sweep them apart."
        )


def _arguments(
    recipe: str, given: Mapping[str, str], fold: int | None, folds: int | None, shared: Mapping[str, Any]
) -> tuple[str, ...]:
    arguments = [recipe]
    for key, value in given.items():
        arguments += ["--set", f"{key}={value}"]
    if fold is not None:
        for other in (number for number in range(folds) if number != fold):
            arguments += ["--train-split", f"fold{other}"]
        arguments += ["--val-split", f"fold{fold}"]
    for name, value in shared.items():
        for one in value if isinstance(value, list) else [value]:
            arguments += [f"--{name.replace('_', '-')}", _whole(one)]
    return tuple(arguments)


def _whole(value: Any) -> str:
    """A value as text; paths, also behind ``PART=``, whole, as the process that reads them may be elsewhere."""
    if isinstance(value, Path):
        return str(value.absolute())
    part, equals, path = str(value).rpartition("=")
    return f"{part}{equals}{Path(path).absolute()}" if path and Path(path).is_file() else str(value)


def _mark(recipe: Recipe, arguments: tuple[str, ...], store: Path | None) -> str:
    facts = [recipe.data, arguments[1:], "" if store is None else input_stamp({"store": store})]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _renamed(jobs: list[SweepJob]) -> list[SweepJob]:
    """The jobs with names that can be those of folders."""
    folders = folder_names(job.name for job in jobs)
    return [replace(job, name=folders[job.name]) for job in jobs]
