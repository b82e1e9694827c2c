"""What is judged: a model that is run here, or the results that something wrote before."""

from __future__ import annotations

import time
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import read_volume
from NeuraxisLib.result import Landmark, Result
from NeuraxisLib.result_folder import RESULT_FILE, read_result, write_result
from NeuraxisLib.run import ModelCache, task_options
from NeuraxisLib.task import Progress, Task
from NeuraxisLib.volume import Volume
from Training.evaluation.cases import Case, as_mask, check_same_grid, image_files, structure

#: Maps of a result that say how uncertain it is, the first found is taken.
UNCERTAINTY_MAPS = ("uncertainty", "entropy")
#: Map of a result that shows the searched space, and the option of a task that adds it.
REGION_MAP, REGION_OPTION = "brain", "keep_brain_mask"


@dataclass(frozen=True)
class Prediction:
    """What a method says of one case, on the case's grid.

    Attributes:
        mask: bool (k, j, i).
        probability: (k, j, i) 0..1, or None.
        uncertainty: (k, j, i), higher is less certain, or None.
        seconds: of computing, or None where nobody measured.
        interval_ml: (low, high) given with the volume, or None.
        region: bool (k, j, i), the space that was searched, or None.
        facts: the result's provenance.
    """

    mask: np.ndarray
    probability: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    seconds: float | None = None
    interval_ml: tuple[float, float] | None = None
    region: np.ndarray | None = None
    facts: dict = field(default_factory=dict)

    @classmethod
    def of(cls, result: Result, seconds: float | None = None, values: tuple[int, ...] = ()) -> Prediction:
        """What a Result says; seconds are its own stages summed where it has them, else the ones given.

        Of label maps of several structures, ``values`` are those that are judged; all but 0 if empty.

        Raises:
            InputError: the result has no label map.
        """
        if result.labels is None:
            raise InputError("The result has no label map, so there is nothing to judge; compute it again.")
        maps = {name: scalar_map.volume.array for name, scalar_map in result.maps.items()}
        stages = result.provenance.get("seconds")
        if isinstance(stages, dict) and stages:
            seconds = float(sum(stages.values()))
        total = next((m for m in result.measurements if m.unit == "mL"), None)
        return cls(
            mask=structure(result.labels.array, values),
            probability=maps.get("probability"),
            uncertainty=next((maps[name] for name in UNCERTAINTY_MAPS if name in maps), None),
            seconds=seconds,
            interval_ml=total.interval if total is not None else None,
            region=maps[REGION_MAP] != 0 if REGION_MAP in maps else None,
            facts=result.provenance,
        )


class Method(Protocol):
    """One column of the comparison.

    Attributes:
        name: how tables call it.
        facts: what is known of it as a whole (model, sha256, options).
    """

    name: str
    facts: dict

    def predict(self, case: Case, progress: Progress) -> Prediction:
        """The prediction for a case; NeuraxisError if there is none."""


class ModelMethod:
    """A model run through its task, as the module and the command line run it.

    Args:
        name: how tables call it.
        task: the task.
        model: name of an installed model or a model file.
        options: option name -> value of the task's options (device, kind of uncertainty, legacy switches ...).
        keep: folder that gets a result folder for every case, or None.

    Raises:
        ModelError: the model cannot be read or belongs to another task.
        InputError: unknown option.
    """

    def __init__(
        self, name: str, task: Task, model: str, options: Mapping[str, Any] | None = None, keep: Path | None = None
    ):
        self.name, self._task, self._keep = name, task, keep
        self._model = ModelCache().get(task, model)
        region = {REGION_OPTION: True} if REGION_OPTION in typing.get_type_hints(task.options_type) else {}
        self._options = task_options(task, _typed(task, {**region, **(options or {})}))
        header = self._model.header
        self.facts = {
            "model": self._model.name,
            "title": self._model.title,
            "sha256": self._model.sha256,
            "architecture": header["architecture"]["name"],
            "options": {name: _without_folders(name, value) for name, value in (options or {}).items()},
            "notice": header["notice"],
        }

    def predict(self, case: Case, progress: Progress) -> Prediction:
        """Run the model on the case's image."""
        if case.image is None:
            raise InputError(f"The image of '{case.id}' is not at hand; name the folder of the images.")
        start = time.perf_counter()
        result = self._result(case.id, case.image, progress)
        return Prediction.of(result, time.perf_counter() - start)

    def points(self, case: str, image: Volume, progress: Progress) -> list[Landmark]:
        """The named points that the model finds in an image."""
        return self._result(case, image, progress).points

    def _result(self, case: str, image: Volume, progress: Progress) -> Result:
        result = self._task.run({next(iter(self._task.inputs)): image}, self._model, self._options, progress)
        remember(self.facts, result.provenance)
        if self._keep is not None:
            self._keep.mkdir(parents=True, exist_ok=True)
            write_result(result, self._keep / case, report=False)
        return result


class FolderMethod:
    """Results that lie in a folder: ``<case>/`` as result folders, or ``<case>.nii.gz`` as bare masks.

    Raises:
        InputError: not a folder, or it holds a result of none of the cases.
    """

    def __init__(self, name: str, folder: Path, ids: list[str], values: tuple[int, ...] = ()):
        self.name, self._folder, self._values = name, folder, values
        self._masks = image_files(folder)
        self.facts: dict = {"results": "read from result folders"}
        if not any(self._place(case) or case in self._masks for case in ids):
            raise InputError(
                f"The folder '{folder.name}' of '{name}' holds a result of none of the {len(ids)} cases; "
                "its result folders or masks must be named like the cases."
            )

    def _place(self, case: str) -> Path | None:
        return place if ((place := self._folder / case) / RESULT_FILE).is_file() else None

    def predict(self, case: Case, progress: Progress) -> Prediction:
        """Read the result of the case."""
        place = self._place(case.id)
        if place is not None:
            result = read_result(place)
            check_same_grid(result.source, case.grid, "result", case.id)
            remember(self.facts, result.provenance)
            return Prediction.of(result, values=self._values)
        if case.id in self._masks:
            mask = read_volume(self._masks[case.id])
            check_same_grid(mask, case.grid, "result", case.id)
            return Prediction(as_mask(mask, "result", case.id) & structure(mask.array, self._values))
        raise InputError(f"There is no result of '{case.id}'; compute it, or leave the case out of the truth.")


def remember(facts: dict, provenance: dict) -> None:
    """Add what results say of the model that made them; several models, or kinds of uncertainty, are all named."""
    model, uncertainty = (provenance.get(key) for key in ("model", "uncertainty"))
    model = model if isinstance(model, dict) else {}
    said = {"model": model.get("name"), "title": model.get("title"), "sha256": model.get("sha256")}
    said["uncertainty"] = uncertainty.get("method") if isinstance(uncertainty, dict) else None
    for key, value in said.items():
        known = facts.get(key, [])
        known = known if isinstance(known, list) else [known]
        if value and value not in known:
            facts[key] = [*known, value] if known else value


def _without_folders(name: str, value: Any) -> Any:
    """An option as reports show it: where the further models of an ensemble lie is nobody's business."""
    return ", ".join(Path(part.strip()).name for part in value.split(",")) if name == "ensemble" else value


def _typed(task: Task, options: Mapping[str, Any]) -> dict[str, Any]:
    """Truth values that came as text from a command line, as truth values; the rest as it is."""
    hints = typing.get_type_hints(task.options_type)
    words = {"true": True, "yes": True, "false": False, "no": False}
    return {
        name: words.get(value.lower(), value) if hints.get(name) is bool and isinstance(value, str) else value
        for name, value in options.items()
    }
