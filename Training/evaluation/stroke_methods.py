"""What is judged on perfusion maps of a store: stroke networks, and published threshold rules by name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.models import find_model, load_model
from NeuraxisLib.task import Progress, get_task
from StrokeCTPLib.networks.classes import LABEL_OF, STRUCTURES, decoded
from StrokeCTPLib.networks.configurations import MIP, SCALARS
from StrokeCTPLib.prediction import DEFAULTS, predict, predict_pictures
from StrokeCTPLib.threshold_rules import THRESHOLD_RULES, mark
from Training.evaluation.cases import Case
from Training.evaluation.methods import Method, Prediction
from Training.stroke_cache import COLOURS, NUMBERS


def stroke_method(name: str, model: str, options: Mapping[str, Any], structure: str) -> Method:
    """A threshold rule if ``model`` is the name of one, else the network of a model file.

    Raises:
        InputError: the rule does not define the structure, or there is no such option.
        ModelError: no such model file, or one of another task.
    """
    if model in THRESHOLD_RULES:
        return RuleMethod(name, model, structure)
    return NetworkMethod(name, model, options, structure)


class NetworkMethod:
    """A stroke network, run as the module runs it.

    Args:
        name: how tables call it.
        model: name of an installed model or a model file.
        options: of prediction (device, precision, flip_averaging).
        structure: one of :data:`STRUCTURES`.
    """

    def __init__(self, name: str, model: str, options: Mapping[str, Any], structure: str):
        self.name, self._structure = name, structure
        self._model = load_model(find_model(get_task("stroke"), model), "stroke")
        unknown = sorted(set(options) - set(DEFAULTS))
        if unknown:
            raise InputError(f"There is no option '{unknown[0]}'; choose one of: {', '.join(DEFAULTS)}.")
        words = {"true": True, "yes": True, "false": False, "no": False}
        self._options = {key: words.get(str(value).lower(), value) for key, value in options.items()}
        header = self._model.header
        if structure != "hypoperfused" and "hypoperfused" in header.get("classes", ()):
            raise InputError(f"The model '{self._model.name}' does not tell {structure} apart; judge hypoperfused.")
        self.facts = {
            "model": self._model.name, "title": self._model.title, "sha256": self._model.sha256,
            "architecture": header["architecture"]["name"], "options": dict(options), "notice": header["notice"],
        }  # fmt: skip

    def predict(self, case: Case, progress: Progress) -> Prediction:
        """Run the network on the case's maps."""
        began = time.perf_counter()
        options = SimpleNamespace(**{**{key: case.scalars.get(key) for key in SCALARS}, **self._options})
        if case.unit == COLOURS:
            names = dict.fromkeys(channel.rpartition("_")[0] for channel in case.channels)
            parts = {n: [case.channels[f"{n}_{c}"] for c in ("red", "green", "blue")] for n in names}
            maps = {name: case.grid.like(np.stack(part)) for name, part in parts.items()}
            found, facts = predict_pictures(maps, self._model, options, progress)
        else:
            maps = {name: case.grid.like(array) for name, array in numbers_of(case).items()}
            found, facts = predict(maps, self._model, options, progress)
        classes, values = tuple(facts["classes"]), STRUCTURES[self._structure]
        chosen = [part for part, name in zip(found, classes) if LABEL_OF[name] in values]
        mask = np.isin(decoded(found, classes), values)
        seconds = time.perf_counter() - began
        return Prediction(mask, np.sum(chosen, axis=0).clip(0, 1), None, seconds, None, case.region, facts)


class RuleMethod:
    """A published threshold rule (:data:`StrokeCTPLib.threshold_rules.THRESHOLD_RULES`) on maps in numbers."""

    def __init__(self, name: str, rule: str, structure: str):
        self.name, self._rule, self._structure = name, rule, structure
        chosen = THRESHOLD_RULES[rule]
        undefined = (structure == "core" and not chosen.core) or (structure == "penumbra" and not chosen.penumbra)
        if undefined:
            raise InputError(f"The rule '{rule}' does not define {structure}; leave it out or judge another structure.")
        self.facts = {"rule": rule, "title": chosen.source}

    def predict(self, case: Case, progress: Progress) -> Prediction:
        """Apply the rule to the case's maps."""
        began, maps = time.perf_counter(), numbers_of(case)
        labels = mark(self._rule, maps, case.region)
        mask = np.isin(labels, STRUCTURES[self._structure])
        return Prediction(mask, seconds=time.perf_counter() - began, region=case.region)


def numbers_of(case: Case) -> dict[str, np.ndarray]:
    """Name -> map in numbers of a store's case, NaN outside the brain; InputError if it holds none."""
    if case.unit != NUMBERS or not case.channels:
        raise InputError(
            f"'{case.id}' holds no maps in numbers; prepare the store with --colours numbers or from maps."
        )
    inside = True if case.region is None else case.region
    return {
        name: np.where(inside, array, np.nan) if name != MIP else np.asarray(array)
        for name, array in case.channels.items()
    }
