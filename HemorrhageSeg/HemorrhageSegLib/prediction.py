"""How a model finds blood: one finder per kind of model, all with the same face.

    finder = finder_for(model, options)                   # refuses what cannot work before anything is computed
    found = finder(axial, brain, progress, clock)         # a Prediction on the axial grid

Slice networks (``preprocessing.kind`` absent or "slices") see square pictures of the brain's box. Methods without
weights are functions named in :data:`CLASSICAL`. The pipeline does the rest alike for all: searched space, density
rules, threshold, measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np

from HemorrhageSegLib import legacy
from HemorrhageSegLib.networks import NETWORKS
from HemorrhageSegLib.task import HemorrhageOptions
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.models import ModelFile
from NeuraxisLib.preprocessing import SliceGrid, SlicePreprocessing, slice_grid
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume

#: Methods that need no weights: architecture name of the model file -> "module:function". The function is
#: ``function(axial, brain, arguments, progress)``: the CT in HU with axial slices, the intracranial space as bool
#: (k, j, i), ``architecture.arguments`` of the model file, and a Progress to report to and to be cancelled by (its
#: 0..1 is the function's own share); it returns the probability of blood, float32 (k, j, i) in 0..1, on that grid.
#: What lies outside the brain does not matter; it raises ModelError for arguments it does not take.
CLASSICAL = {
    "FuzzyCMeans": "HemorrhageSegLib.classical:fuzzy_c_means",
    "ActiveContour": "HemorrhageSegLib.classical:active_contour",
}
#: What the maps of these methods are.
MEANINGS = {"FuzzyCMeans": "membership in the cluster of blood", "ActiveContour": "distance from the contour, scaled"}


@dataclass
class Clock:
    """Seconds per stage, for provenance."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block; several blocks of one name add up."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


@dataclass
class Prediction:
    """What a finder found.

    Attributes:
        probability: (k, j, i) float32 in 0..1 on the axial grid, not yet limited to the searched space.
        facts: for provenance (device, precision, grid).
        warnings: sentences for the reader.
        slices: (n, size, size) probability on the network's own slices, for the legacy counts; None if there are none.
        meaning: what the map is, in words, where it is no probability.
    """

    probability: np.ndarray
    facts: dict
    warnings: list[str] = field(default_factory=list)
    slices: np.ndarray | None = None
    meaning: str = ""


Finder = Callable[[Volume, np.ndarray, Progress, Clock], Prediction]


def finder_for(model: ModelFile, options: HemorrhageOptions) -> Finder:
    """The finder of a model.

    Raises:
        ModelError: the model file describes what this version cannot do.
        InputError: an option that is not for this model.
    """
    if model.header["architecture"]["name"] in CLASSICAL:
        return ClassicalFinder(model, options)
    if options.legacy_no_skull_strip:
        raise InputError(
            f"The option legacy_no_skull_strip is for the classical methods, not for '{model.name}'; choose one of "
            "them or leave it out."
        )
    kind = model.header["preprocessing"].get("kind", "slices")
    if kind != "slices":
        raise ModelError(
            f"The model '{model.name}' needs preprocessing of the kind '{kind}', which this version does not have; "
            "update the extension."
        )
    return SliceFinder(model, options)


class ClassicalFinder:
    """A method of :data:`CLASSICAL`."""

    def __init__(self, model: ModelFile, options: HemorrhageOptions):
        self._model, self._whole_picture = model, options.legacy_no_skull_strip

    def __call__(self, axial: Volume, brain: np.ndarray, progress: Progress, clock: Clock) -> Prediction:
        """Run the method on the CT itself."""
        self._model.check()
        architecture = self._model.header["architecture"]
        arguments, warnings = architecture["arguments"], []
        if self._whole_picture:
            arguments = {**arguments, "legacy_no_skull_strip": True}
            warnings.append("The whole picture was searched, as was asked for: bone is called blood.")
        module, function = CLASSICAL[architecture["name"]].split(":")
        with clock.stage("prediction"):
            found = getattr(import_module(module), function)(axial, brain, arguments, progress)
        return Prediction(found, {"device": "cpu"}, warnings, meaning=MEANINGS[architecture["name"]])


class SliceFinder:
    """A 2-D network over the slices of the brain's box."""

    def __init__(self, model: ModelFile, options: HemorrhageOptions):
        self._model, self._options = model, options
        self._preprocessing = SlicePreprocessing.from_dict(model.header["preprocessing"])

    def __call__(self, axial: Volume, brain: np.ndarray, progress: Progress, clock: Clock) -> Prediction:
        """Resample to slices, run the network on those that meet the brain, and come back."""
        progress(0.0, "Preparing slices")
        with clock.stage("slices"):
            grid = slice_grid(axial, brain, self._preprocessing)
            slabs = grid.forward(axial.array)
        progress(0.05, "Loading the network")
        with clock.stage("network"):
            from NeuraxisLib.inference import predictor_for  # torch is loaded after all that can be refused without it

            options = self._options
            predictor = predictor_for(
                self._model, NETWORKS, options.device, options.precision, options.legacy_batch_statistics
            )
        with clock.stage("prediction"):
            centres = _slabs_in_brain(grid, brain)
            found = predictor.predict(
                lambda numbers: self._preprocessing.images(slabs, centres[numbers]),
                len(centres),
                progress.part(0.1, 1.0),
                flip=bool(self._model.header.get("flip_averaging", False)),
                stage="Finding blood",
            )
        on_grid = np.zeros(slabs.shape, np.float32)
        on_grid[centres] = found[:, 0]
        facts = {
            **_torch_facts(),
            "device": predictor.device,
            "precision": predictor.precision,
            "grid": {"pixel_mm": round(grid.pixel_mm, 4), "slices": len(grid.slabs)},
        }
        with clock.stage("way back"):
            probability = grid.backward(_legacy_values(on_grid, options))
        return Prediction(probability, facts, list(predictor.warnings), on_grid)


def _torch_facts() -> dict:
    import torch

    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def _slabs_in_brain(grid: SliceGrid, brain: np.ndarray) -> np.ndarray:
    """Numbers of the slabs that meet the brain."""
    return np.flatnonzero(grid.slabs @ brain.any(axis=(1, 2)).astype(np.float32) > 0)


def _legacy_values(on_grid: np.ndarray, options: HemorrhageOptions) -> np.ndarray:
    """Probabilities of slices as the released code of DR-UNet would have kept them, if that is asked for."""
    if options.legacy_stretched_sheet:
        on_grid = legacy.stretch(on_grid)
    if options.legacy_mask_threshold:
        on_grid = legacy.floor_to_8_bit(on_grid).astype(np.float32) / 255
    return on_grid
