"""A small set of cases with truth, and methods that are wrong in known ways, for the tests of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.result import Measurement, Result, ScalarMap
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from Training.evaluation.cases import Case
from Training.evaluation.methods import Prediction

#: 6 slices of 5 mm, 40 x 40 pixels of 1 mm.
SHAPE = (6, 40, 40)
GRID = Volume(np.zeros(SHAPE, np.int16), np.diag([-1.0, -1.0, 5.0, 1.0]))


def box(rows: slice, slices: slice = slice(2, 4)) -> np.ndarray:
    """A mask of ten columns, some rows and slices."""
    mask = np.zeros(SHAPE, bool)
    mask[slices, rows, 10:20] = True
    return mask


#: case -> truth: two bleeds of 1.0 and 2.0 mL, and one scan without.
TRUTHS = {"small": box(slice(10, 20)), "large": box(slice(5, 25)), "clean": np.zeros(SHAPE, bool)}
GROUPS = {"small": "IPH", "large": "SDH", "clean": "none"}


def image() -> Volume:
    """A plain round head: air, skull, brain."""
    _, j, i = np.indices(SHAPE)
    radius = np.hypot(j - 19.5, i - 19.5)
    array = np.where(radius < 15, 35, np.where(radius < 18, 900, -1000)).astype(np.int16)
    return Volume(array, GRID.ijk_to_ras, "HU")


def case(name: str, **changes) -> Case:
    """A case of :data:`TRUTHS`."""
    facts = {"group": GROUPS[name], "grid": GRID, "truth": TRUTHS[name], "image": image(), **changes}
    return Case(name, **facts)


def prediction(mask: np.ndarray, certainty: float = 0.9, **changes) -> Prediction:
    """A mask with the probability ``certainty`` inside and its counterpart 0 outside."""
    probability = np.where(mask, certainty, 0.0).astype(np.float32)
    return Prediction(mask, probability, 4 * probability * (1 - probability), 2.0, **changes)


@dataclass
class Known:
    """Cases in memory."""

    name: str = "known"
    ids: list[str] = field(default_factory=lambda: list(TRUTHS))
    unjudged: dict[str, str] = field(default_factory=dict)

    def case(self, name: str) -> Case:
        """A case of TRUTHS; ``broken`` cannot be read."""
        if name == "broken":
            raise InputError("The truth of 'broken' is damaged; export it again.")
        return case(name)


@dataclass
class Scripted:
    """A method that answers from a table: case -> mask, or an error to raise."""

    name: str
    answers: dict
    facts: dict = field(default_factory=dict)

    def predict(self, case: Case, progress: Progress) -> Prediction:
        """The answer for the case."""
        answer = self.answers[case.id]
        if isinstance(answer, BaseException):
            raise answer
        return prediction(answer)


def result(mask: np.ndarray, certainty: float = 0.9) -> Result:
    """A result of the hemorrhage task with the maps that it writes."""
    found = prediction(mask, certainty)
    ml = float(mask.sum()) * 0.005
    return Result(
        task="hemorrhage",
        source=image(),
        labels=GRID.like(mask.astype(np.uint8)),
        maps={
            "probability": ScalarMap(GRID.like(found.probability), "Probability", (0.0, 1.0)),
            "entropy": ScalarMap(GRID.like(found.uncertainty), "Uncertainty", (0.0, 1.0)),
        },
        measurements=[Measurement("Total volume", ml, "mL", (0.8 * ml, 1.2 * ml))],
        provenance={"model": {"name": "tested", "sha256": "0" * 64}, "seconds": {"brain": 1.0, "prediction": 2.5}},
    )


def write_truths(folder: Path) -> Path:
    """The truths with their images, ``<case>_truth.nii.gz`` beside ``<case>.nii.gz``."""
    folder.mkdir(parents=True)
    for name, truth in TRUTHS.items():
        write_volume(GRID.like(truth.astype(np.uint8)), folder / f"{name}_truth.nii.gz")
        write_volume(image(), folder / f"{name}.nii.gz")
    return folder


def write_results(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    """Result folders of some masks."""
    folder.mkdir(parents=True)
    for name, mask in masks.items():
        write_result(result(mask), folder / name, report=False)
    return folder
