"""The kinds of training that there are: which task, which data, which keys of a recipe, which losses.

A recipe's ``[preprocessing] kind`` names its family (without one: ``"slices"``). Another task brings a module of its
own that holds a :class:`Family`, and one line in :data:`FAMILIES`; nothing else here or in the training loop changes.
Everything that computes is named as ``"module:attribute"`` and imported when it is needed, so that reading a recipe
needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from operator import attrgetter
from typing import Any

from NeuraxisLib.errors import InputError, check_choice
from Training import recipe_keys as keys
from Training.recipe_keys import Keys, Range

#: Task -> the table of its networks: architecture -> "module:attribute".
NETWORKS = {
    "hemorrhage": "HemorrhageSegLib.networks:NETWORKS",
    "stroke": "StrokeCTPLib.networks:NETWORKS",
    "discs": "SpineDiscLabelLib.networks:NETWORKS",
}
#: What ``[preprocessing] kind`` says -> where its family is described.
FAMILIES = {
    "slices": "Training.families:SLICES",
    "volume": "Training.families:PATCHES",
    "sagittal": "Training.discs_family:FAMILY",
    "maps": "Training.stroke_family:FAMILY",
}


@dataclass(frozen=True)
class Family:
    """A way to train networks of one task. What computes is named as ``"module:attribute"``.

    Attributes:
        name: for messages and tests.
        task: one of :data:`NETWORKS`.
        data: ``data(options, recipe, store) -> Training.data.Data``: samples, validation cases, what the model file
            says of labels; ``options`` are those of ``train.py``, ``store`` is None without ``--store``.
        scores: ``scores(network, cases, recipe, device) -> {"score": ...}``, higher is better; in several processes
            every one must return the scores of all (:func:`Training.distributed.gathered`).
        preprocessing: ``preprocessing(section) -> object`` with ``to_dict()``, which is what the model file holds and
            what prediction reads; ModelError for a description that cannot be.
        losses: table of loss name -> :class:`Training.losses.Loss`.
        dimensions: of the images; three-dimensional networks are computed in fp32 on a CPU.
        keys: recipe section -> key -> type, beside those that all families have (:data:`recipe_keys.SECTIONS`).
        defaults: of keys that may be left out.
        choices: ``section.key`` -> texts that it may hold.
        ranges: ``section.key`` -> lowest and highest number.
        optional: keys that may be missing and stay so.
        check: ``check(recipe)`` raises InputError for what cannot be; "" checks nothing more.
        regime: ``regime(recipe) -> Training.regimes.Regime``: stages, penalties, limits; "" is the plain one.
        start_from: NAME -> ``parts(path, network) -> {beginning of parameter names: weights}``, for weights of others
            given as ``--start-from NAME=FILE``.
    """

    name: str
    task: str
    data: str
    scores: str
    preprocessing: str
    losses: str
    dimensions: int = 2
    keys: Mapping[str, Keys] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    check: str = ""
    regime: str = ""
    start_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def sections(self) -> dict[str, Keys]:
        """Section -> key -> type, of all that a recipe of this family may say."""
        names = {**keys.SECTIONS, **self.keys}
        return {name: {**keys.SECTIONS.get(name, {}), **self.keys.get(name, {})} for name in names}

    @property
    def all_defaults(self) -> dict[str, dict[str, Any]]:
        """Section -> key -> value where the recipe gives none."""
        names = {**keys.DEFAULTS, **self.defaults}
        return {name: {**keys.DEFAULTS.get(name, {}), **self.defaults.get(name, {})} for name in names}


def found(place: str) -> Any:
    """What lies at ``"module:attribute"``."""
    module, attribute = place.split(":")
    return attrgetter(attribute)(import_module(module))


def family_of(kind: Any) -> Family:
    """The family of a ``[preprocessing] kind``; InputError if there is none."""
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"The recipe's 'preprocessing.kind' is {kind!r}; choose one of: {', '.join(FAMILIES)}.")
    return found(FAMILIES[kind])


def network_class(task: str, name: str) -> Any:
    """The class (or function) that builds a network of a task.

    Raises:
        InputError: the task's library is not installed, or it has no network of that name.
    """
    library = NETWORKS[task].partition(".")[0]
    try:
        table = found(NETWORKS[task])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise InputError(
            f"The task '{task}' needs its library {library}, which is not installed; install Neuraxis with it."
        ) from None
    check_choice("network", name, table)
    return found(table[name])


#: Axial slices of heads, one at a time or with their neighbours.
SLICES = Family(
    name="slices",
    task="hemorrhage",
    data="Training.data:slices_of_heads",
    scores="Training.validation:slice_scores",
    preprocessing="NeuraxisLib.preprocessing:SlicePreprocessing.from_dict",
    losses="Training.losses:LOSSES",
    keys={**keys.HEADS, "preprocessing": keys.SLICE_PREPROCESSING},
    defaults=keys.HEAD_DEFAULTS,
    choices=keys.HEAD_CHOICES,
    ranges=keys.HEAD_RANGES,
    optional=keys.HEAD_OPTIONAL,
    check="Training.recipe_checks:check_heads",
)
#: Three-dimensional patches of head CTs.
PATCHES = Family(
    name="patches",
    task="hemorrhage",
    data="Training.data:patches_of_volumes",
    scores="Training.patches:patch_scores",
    preprocessing="NeuraxisLib.volume_preprocessing:VolumePreprocessing.from_dict",
    losses="Training.losses:LOSSES",
    dimensions=3,
    keys={**keys.HEADS, "preprocessing": keys.VOLUME_PREPROCESSING},
    defaults={**keys.HEAD_DEFAULTS, "sampling": {**keys.HEAD_DEFAULTS["sampling"], "augmentation": "none"}},
    choices=keys.HEAD_CHOICES,
    ranges=keys.HEAD_RANGES,
    optional=keys.HEAD_OPTIONAL,
    check="Training.recipe_checks:check_heads",
)
