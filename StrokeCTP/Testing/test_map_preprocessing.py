"""What networks are shown of perfusion maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from NeuraxisLib.errors import InputError, ModelError
from StrokeCTPLib.map_preprocessing import MEAN_BGR, MapPreprocessing
from StrokeCTPLib.networks.configurations import MAPS, MIP
from StrokeCTPLib.networks.multi_input_vgg import CompactMultiInputVGG


def maps(value_of: dict[str, float], size: int = 32) -> dict[str, np.ndarray]:
    return {name: np.full((2, size, size), value, np.float32) for name, value in value_of.items()}


LOWEST = {"cbf": 0.0, "cbv": 0.0, "ttp": 0.0, "tmax": 0.0}


def test_colours_are_blue_green_red_as_published():
    shown = MapPreprocessing(size=32)
    given = maps({**LOWEST, "cbf": 100.0, "tmax": 12.0})
    given["ttp"][0, 3, 4] = np.nan
    images = shown.images(given)
    assert images.shape == (2, 12, 32, 32) and images.dtype == np.float32
    assert images[0, :3, 0, 0].tolist() == [30, 30, 224]
    assert images[0, 3:6, 0, 0].tolist() == [50, 0, 50]
    assert images[0, 9:, 0, 0].tolist() == [0, 0, 255]
    assert images[0, 6:9, 3, 4].tolist() == [0, 0, 0]
    taken = MapPreprocessing(size=32, subtract_mean=True).images(given)
    assert np.allclose(images[0, :3, 0, 0] - taken[0, :3, 0, 0], MEAN_BGR)


def test_mip_is_grey_and_numbers_are_planes():
    shown = MapPreprocessing((*MAPS, MIP), ("nihss", "age"), 32)
    images = shown.images(maps({**LOWEST, MIP: 75.0}), {"nihss": 17, "age": 71})
    assert images.shape[1] == shown.channels == 17
    assert images[0, 12:15, 0, 0].tolist() == [128, 128, 128]
    assert (images[:, 15] == 17).all() and (images[:, 16] == 71).all()


def test_numbers_are_shares_of_the_range_for_the_compact_network():
    shown = MapPreprocessing(("cbf", "tmax"), (), 32, "numbers", ranges={"cbf": (0, 100), "tmax": (0, 12)})
    given = maps({"cbf": 25.0, "tmax": 20.0})
    given["cbf"][0, 0, 0] = np.nan
    images = shown.images(given)
    assert images[1, :, 0, 0].tolist() == [0.25, 1.0] and images[0, 0, 0, 0] == 0
    network = CompactMultiInputVGG(maps=shown.maps, size=32).eval()
    assert network(torch.from_numpy(images)).shape == (2, 3, 32, 32)


def test_description_survives_json():
    shown = MapPreprocessing((*MAPS, MIP), ("nihss",), 256, "numbers", 0.9, subtract_mean=True)
    again = MapPreprocessing.from_dict(json.loads(json.dumps(shown.to_dict())))
    assert again.to_dict() == shown.to_dict() and again.channels == shown.channels == 6


@pytest.mark.parametrize(
    "data",
    [{}, {"kind": "slices", "maps": ["cbf"]}, {"kind": "maps", "maps": ["flow"]},
     {"kind": "maps", "maps": ["cbf"], "size": 96, "tile": 64},
     {"kind": "maps", "maps": []},
     {"kind": "maps", "maps": ["cbf"], "size": 100}, {"kind": "maps", "maps": ["cbf"], "shown": "grey"},
     {"kind": "maps", "maps": ["cbf"], "window": 1}, {"kind": "maps", "maps": ["cbf"], "ranges": {"cbf": [5, 1]}},
     {"kind": "maps", "maps": ["cbf"], "size": "512"}, {"kind": "maps", "maps": 3}],
)  # fmt: skip
def test_impossible_descriptions(data):
    with pytest.raises(ModelError, match="install the model again"):
        MapPreprocessing.from_dict(data)


@pytest.mark.parametrize(
    ("given", "scalars", "message"),
    [
        ({"cbf": 1, "cbv": 1, "ttp": 1}, {"nihss": 4}, "map TMAX is missing"),
        (LOWEST, {}, "NIHSS is not given"),
        (LOWEST, {"nihss": 43}, "NIHSS 43 is outside 0 to 42"),
        (LOWEST, {"nihss": -1}, "outside 0 to 42"),
        (LOWEST, {"nihss": float("nan")}, "outside 0 to 42"),
    ],
)
def test_incomplete_input(given, scalars, message):
    with pytest.raises(InputError, match=message):
        MapPreprocessing(scalars=("nihss",), size=32).images(maps(given), scalars)


def test_other_grids():
    shown = MapPreprocessing(size=32)
    with pytest.raises(InputError, match="resample"):
        shown.images(maps(LOWEST, 64))
    with pytest.raises(InputError, match="different grids"):
        shown.images({**maps(LOWEST), "tmax": np.zeros((1, 32, 32))})
