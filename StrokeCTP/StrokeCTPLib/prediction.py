"""What a network makes of perfusion maps: the probability of every class, without labels and without a second pass.

    probabilities, facts = predict(maps, model, options, progress)

The published networks are shown the maps in their colours, the compact ones in shares of physical ranges; the model
file says which, and everything else. Tiles stand side by side, as in the released code (specification 1.7, 1.9).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from NeuraxisLib.errors import GeometryError, InputError, ModelError
from NeuraxisLib.models import ModelFile
from NeuraxisLib.preprocessing import SliceGrid
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib.map_grid import map_grid, on_grid
from StrokeCTPLib.map_preprocessing import MapPreprocessing, transit_time
from StrokeCTPLib.networks import NETWORKS
from StrokeCTPLib.networks.classes import classes_of
from StrokeCTPLib.networks.configurations import MIP


class Options(Protocol):
    """What prediction looks at; whatever is missing has the value of :data:`DEFAULTS`."""

    device: str
    precision: str
    flip_averaging: bool
    nihss: float | None
    age: float | None
    gender: float | None


DEFAULTS: dict[str, Any] = {
    "device": "auto", "precision": "auto", "flip_averaging": False, "nihss": None, "age": None, "gender": None,
}  # fmt: skip


def predict(
    maps: Mapping[str, Volume], model: ModelFile, options: Options | None = None, progress: Progress | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probability of every class, float32 (classes, k, j, i) on the grid of the maps, and facts about the run.

    Where none of the maps has a value the class is background (probability 1).

    Args:
        maps: name -> map in the unit of the field (:data:`~StrokeCTPLib.map_units.MAP_UNITS`), NaN outside the brain;
            any stored orientation. More than the model reads may be given; an MTT that is missing is made of CBV and
            CBF.
        model: a model file of the task "stroke".
        options: see :class:`Options`; also the patient's numbers that some models read.
        progress: told how far it is; may cancel.

    Returns:
        Probabilities, and facts: ``classes`` (names, in order), ``maps`` and ``scalars`` (as read), ``derived`` (maps
        that were made of others), ``pixel_mm``, ``device``, ``precision``, ``seconds``, ``warnings``.

    Raises:
        InputError: a map or number that the model reads is missing, or cannot be; the maps hold no value.
        GeometryError: the maps lie on different grids.
        ModelError: the model file cannot be used.
        CancelledError: the user cancelled.
    """
    began, progress = time.perf_counter(), progress or Progress()
    shown = MapPreprocessing.from_dict(model.header["preprocessing"])
    progress(0.0, "Preparing the maps")
    maps, derived = _with_transit_time(maps, shown)
    volume, order, arrays = _axial(maps, shown)
    known = np.any([np.isfinite(array) for name, array in arrays.items() if name != MIP], axis=0)
    grid = map_grid(volume, known, shown)
    numbers = _numbers(options, shown)
    images = shown.images({name: on_grid(grid, array) for name, array in arrays.items()}, numbers)
    probabilities, facts = _of_images(images, grid, known, model, options, progress)
    facts |= {"scalars": numbers, "derived": derived, "seconds": round(time.perf_counter() - began, 2)}
    return np.stack([order.undo_array(part) for part in probabilities]), facts


def predict_pictures(
    colours: Mapping[str, Volume], model: ModelFile, options: Options | None = None, progress: Progress | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """As :func:`predict`, of maps that are pictures in the colours that the network learnt; nothing is read from them.

    Args:
        colours: name -> uint8 (3, k, j, i) red, green and blue, black outside the brain.
        model, options, progress: see :func:`predict`.
    """
    began, progress = time.perf_counter(), progress or Progress()
    shown = MapPreprocessing.from_dict(model.header["preprocessing"])
    volume, order, arrays = _axial(colours, shown)
    known = np.any([array.any(axis=0) for name, array in arrays.items() if name != MIP], axis=0)
    grid = map_grid(volume, known, shown)
    planes = [grid.forward(plane, outside=0.0) for array in arrays.values() for plane in array[::-1]]
    numbers = _numbers(options, shown)
    images = shown.pictures(np.rint(np.stack(planes, axis=1)), numbers)
    probabilities, facts = _of_images(images, grid, known, model, options, progress)
    facts |= {"scalars": numbers, "seconds": round(time.perf_counter() - began, 2)}
    return np.stack([order.undo_array(part) for part in probabilities]), facts


def _with_transit_time(maps: Mapping[str, Volume], shown: MapPreprocessing) -> tuple[Mapping[str, Volume], list[str]]:
    """The maps with an MTT of CBV and CBF where the network reads one that was not given, and what was so made."""
    if "mtt" not in shown.maps or "mtt" in maps or not {"cbf", "cbv"} <= set(maps):
        return maps, []
    cbf, cbv = maps["cbf"], maps["cbv"]
    if cbf.array.shape != cbv.array.shape:
        return maps, []
    return {**maps, "mtt": cbf.like(transit_time(cbf.array, cbv.array), "s")}, ["mtt"]


def _chosen(options: Options | None, name: str) -> Any:
    return getattr(options, name, DEFAULTS[name])


def _numbers(options: Options | None, shown: MapPreprocessing) -> dict[str, float]:
    """The patient's numbers that the network reads, those that are given."""
    return {name: value for name in shown.scalars if (value := _chosen(options, name)) is not None}


def _of_images(
    images: np.ndarray,
    grid: SliceGrid,
    known: np.ndarray,
    model: ModelFile,
    options: Options | None,
    progress: Progress,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities on the axial grid of the maps, and facts, of what the network is shown."""
    shown = MapPreprocessing.from_dict(model.header["preprocessing"])
    from NeuraxisLib.inference import predictor_for
    from StrokeCTPLib.networks.class_predictor import ClassPredictor

    chosen = {name: _chosen(options, name) for name in ("device", "precision", "flip_averaging")}
    predictor = predictor_for(model, NETWORKS, chosen["device"], chosen["precision"], kind=ClassPredictor)
    _check_channels(model, predictor.network, shown)
    found = tiled(predictor, images, shown.side, progress.part(0.1, 0.95), chosen["flip_averaging"])
    classes = classes_of(found.shape[1])
    probabilities = _back(grid, found, known)
    progress(1.0, "Predicting slices")
    facts = {
        "classes": list(model.header.get("classes", classes)), "maps": list(shown.maps), "pixel_mm": shown.pixel_mm,
        "device": predictor.device, "precision": predictor.precision, "warnings": list(predictor.warnings),
    }  # fmt: skip
    if len(facts["classes"]) != len(probabilities):
        raise ModelError(
            f"The model '{model.name}' names {len(facts['classes'])} classes but its network has {len(probabilities)}; "
            "install it again."
        )
    return probabilities, facts


def tiled(predictor: Any, pictures: np.ndarray, side: int, progress: Progress, flip: bool = False) -> np.ndarray:
    """Probabilities (k, classes, size, size) of pictures (k, channels, size, size), tile beside tile without overlap.

    Args:
        predictor: a :class:`~StrokeCTPLib.networks.class_predictor.ClassPredictor`.
        pictures: what the network is shown; their size is a multiple of ``side``.
        side: of a tile.
        progress: told after every batch; may cancel.
        flip: average with the mirror image.
    """
    slices, channels, size, _ = pictures.shape
    each = size // side
    tiles = pictures.reshape(slices, channels, each, side, each, side).transpose(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(-1, channels, side, side)
    found = predictor.predict(lambda numbers: np.ascontiguousarray(tiles[numbers]), len(tiles), progress, flip)
    found = found.reshape(slices, each, each, found.shape[1], side, side)
    return np.ascontiguousarray(found.transpose(0, 3, 1, 4, 2, 5)).reshape(slices, -1, size, size)


def _axial(maps: Mapping[str, Volume], shown: MapPreprocessing) -> tuple[Volume, Any, dict[str, np.ndarray]]:
    """(grid, its order, name -> float32 array) of the maps that the network reads, slices axial."""
    missing = [name for name in shown.maps if name not in maps]
    if missing:
        raise InputError(
            f"The map {missing[0].upper()} is missing; the model reads {', '.join(shown.maps).upper()}; give it or "
            "choose another model."
        )
    first = maps[shown.maps[0]]
    for name in shown.maps[1:]:
        other = maps[name]
        same = other.array.shape == first.array.shape and np.allclose(other.ijk_to_ras, first.ijk_to_ras, atol=0.05)
        if not same:
            raise GeometryError(
                f"The maps {shown.maps[0].upper()} and {name.upper()} lie on different grids; give maps of one "
                "calculation."
            )
    volume, order = first.axial()
    arrays = {name: order.apply_array(np.asarray(maps[name].array)) for name in shown.maps}
    return volume, order, arrays


def _back(grid: SliceGrid, found: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Probabilities (classes, k, j, i) on the maps' grid, summing to 1; background where nothing is known.

    What the network was not shown, beyond its square, is background too.
    """
    lesions = np.stack([grid.backward(found[:, index]) for index in range(1, found.shape[1])])
    lesions[:, ~known] = 0
    background = np.clip(1 - lesions.sum(axis=0), 0, 1)
    return np.concatenate([background[None], lesions]).astype(np.float32)


def _check_channels(model: ModelFile, network: Any, shown: MapPreprocessing) -> None:
    wanted = getattr(network, "in_channels", shown.channels)
    if wanted != shown.channels:
        raise ModelError(
            f"The model '{model.name}' reads {wanted} channels but its preprocessing makes {shown.channels}; install "
            "it again."
        )
