"""From a head CT to a measured hemorrhage: geometry, brain, slices, network, and the way back to the source grid."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from HemorrhageSegLib import legacy
from HemorrhageSegLib.brain import BrainMask
from HemorrhageSegLib.checks import require_head_ct
from HemorrhageSegLib.density import drop_bone_edges, searched_space
from HemorrhageSegLib.findings import Findings, measure_hemorrhage
from HemorrhageSegLib.networks import NETWORKS
from HemorrhageSegLib.task import HemorrhageOptions
from NeuraxisLib import __version__
from NeuraxisLib.models import ModelFile
from NeuraxisLib.preprocessing import SliceGrid, SlicePreprocessing, slice_grid
from NeuraxisLib.result import Result, ScalarMap
from NeuraxisLib.task import Progress
from NeuraxisLib.uncertainty import binary_entropy, most_uncertain_slices
from NeuraxisLib.volume import AxisOrder, Volume

if TYPE_CHECKING:
    from NeuraxisLib.inference import SlicePredictor

#: Probability and entropy are kept in steps of this: finer digits are noise, and noise does not compress.
MAP_STEP = 1 / 1024
#: Below this confidence of the brain extraction a reader is warned; far below it the scan is refused.
SURE_BRAIN = 0.6
KEY_SLICES = 5


@dataclass
class _Clock:
    """Seconds per stage, for provenance."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def run(inputs: dict[str, Volume], model: ModelFile, options: HemorrhageOptions, progress: Progress) -> Result:
    """Find and measure hemorrhage in ``inputs["ct"]``.

    Args:
        inputs: ``ct``: a non-contrast head CT in HU, (k, j, i), any orientation, tilt or slice gaps.
        model: the network and how it sees a head.
        options: see :class:`~HemorrhageSegLib.task.HemorrhageOptions`.
        progress: told about every stage; cancels between and within them.

    Returns:
        Label map, probability and entropy on the source grid, measurements, tables, warnings, provenance.

    Raises:
        InputError: no head CT with a brain in view.
        GeometryError: the grid cannot be measured on.
        ModelError: the model file does not hold what its header says.
    """
    source, clock = replace(inputs["ct"], unit="HU"), _Clock()
    preprocessing = SlicePreprocessing.from_dict(model.header["preprocessing"])
    progress(0.0, "Finding the brain")
    with clock.stage("brain"):
        brain = require_head_ct(source)
        axial, order = source.axial()
        brain = replace(brain, mask=order.apply_array(brain.mask))
    progress(0.1, "Preparing slices")
    with clock.stage("slices"):
        grid = slice_grid(axial, brain.mask, preprocessing)
        slabs = grid.forward(axial.array)
    progress(0.15, "Loading the network")
    with clock.stage("network"):
        predictor = _predictor(model, options)
    with clock.stage("prediction"):
        centres = _slabs_in_brain(grid, brain)
        on_grid = _predict(predictor, slabs, centres, preprocessing, model, progress.part(0.2, 0.8))
    progress(0.8, "Measuring")
    with clock.stage("measures"):
        threshold, smallest_ml = _rules(model, options)
        space = searched_space(axial, brain.mask)
        probability = _to_source(on_grid, grid, space, options)
        drop_bone_edges(probability, axial, space, threshold)
        findings = measure_hemorrhage(axial, probability, brain.mask, threshold, smallest_ml)
        if options.legacy_fixed_dpi_volume:
            findings.measurements.append(legacy.fixed_dpi_measurement(on_grid))
        progress(0.9, "Measuring")
        result = _result(source, order, brain, probability, findings, options)
    result.warnings += [*predictor.warnings, model.header["notice"]]
    result.provenance = _provenance(model, options, predictor, grid, clock)
    progress(1.0, "Measuring")
    return result


def _predictor(model: ModelFile, options: HemorrhageOptions) -> SlicePredictor:
    from NeuraxisLib.inference import predictor_for  # torch is loaded here, after all that can be refused without it

    return predictor_for(model, NETWORKS, options.device, options.precision, options.legacy_batch_statistics)


def _slabs_in_brain(grid: SliceGrid, brain: BrainMask) -> np.ndarray:
    """Numbers of the slabs that meet the brain."""
    return np.flatnonzero(grid.slabs @ brain.mask.any(axis=(1, 2)).astype(np.float32) > 0)


def _predict(
    predictor: SlicePredictor,
    slabs: np.ndarray,
    centres: np.ndarray,
    preprocessing: SlicePreprocessing,
    model: ModelFile,
    progress: Progress,
) -> np.ndarray:
    """(n, size, size) probability on the slab grid; 0 on slabs without brain."""
    found = predictor.predict(
        lambda numbers: preprocessing.images(slabs, centres[numbers]),
        len(centres),
        progress,
        flip=bool(model.header.get("flip_averaging", False)),
        stage="Finding blood",
    )
    probability = np.zeros(slabs.shape, np.float32)
    probability[centres] = found[:, 0]
    return probability


def _to_source(on_grid: np.ndarray, grid: SliceGrid, space: np.ndarray, options: HemorrhageOptions) -> np.ndarray:
    """Probability (k, j, i) on the axial source grid, within the searched space, in steps of MAP_STEP."""
    if options.legacy_stretched_sheet:
        on_grid = legacy.stretch(on_grid)
    if options.legacy_mask_threshold:
        on_grid = legacy.floor_to_8_bit(on_grid).astype(np.float32) / 255
    probability = grid.backward(on_grid)
    probability *= space
    return _in_steps(probability)


def _in_steps(values: np.ndarray) -> np.ndarray:
    values *= 1 / MAP_STEP
    np.rint(values, out=values)
    values *= MAP_STEP
    return values


def _rules(model: ModelFile, options: HemorrhageOptions) -> tuple[float, float]:
    """Threshold and smallest component in mL: the options' if given, else the model's."""
    threshold = options.threshold if options.threshold > 0 else float(model.header["threshold"])
    if options.legacy_mask_threshold:
        threshold = MAP_STEP  # whatever is left after rounding to 8 bits
    smallest = options.min_component_ml if options.min_component_ml >= 0 else float(model.header["min_component_ml"])
    return threshold, smallest


def _result(
    source: Volume,
    order: AxisOrder,
    brain: BrainMask,
    probability: np.ndarray,
    findings: Findings,
    options: HemorrhageOptions,
) -> Result:
    """The Result with everything taken back to the stored order of the axes."""
    undo = order.undo_array
    entropy = _in_steps(binary_entropy(probability))
    stored_entropy = np.ascontiguousarray(undo(entropy))
    maps = {
        "probability": _map(source, undo(probability), "Probability of hemorrhage"),
        "entropy": _map(source, stored_entropy, "Uncertainty (entropy in bits)"),
    }
    if options.keep_brain_mask:
        maps["brain"] = _map(source, undo(brain.mask).astype(np.uint8), "Intracranial space")
    warnings = [*brain.notes, *findings.warnings]
    if brain.confidence < SURE_BRAIN:
        warnings.append("The brain was found with little confidence; check the outline of the searched space.")
    return Result(
        task="hemorrhage",
        source=source,
        labels=source.like(np.ascontiguousarray(undo(findings.labels))),
        maps=maps,
        measurements=findings.measurements,
        tables=findings.tables,
        key_slices=most_uncertain_slices(stored_entropy, source, KEY_SLICES),
        warnings=warnings,
    )


def _map(source: Volume, array: np.ndarray, title: str) -> ScalarMap:
    return ScalarMap(source.like(np.ascontiguousarray(array)), title, (0.0, 1.0))


def _provenance(
    model: ModelFile, options: HemorrhageOptions, predictor: SlicePredictor, grid: SliceGrid, clock: _Clock
) -> dict:
    import torch

    return {
        "neuraxis": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "model": {"name": model.name, "title": model.title, "file": model.path.name, "sha256": model.sha256},
        "device": predictor.device,
        "precision": predictor.precision,
        "threads": torch.get_num_threads(),
        "options": asdict(options),
        "grid": {"pixel_mm": round(grid.pixel_mm, 4), "slices": len(grid.slabs)},
        "seed": None,  # nothing in this task is random
        "seconds": clock.seconds,
    }
