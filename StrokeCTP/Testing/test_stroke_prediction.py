"""Maps in, probabilities of classes out: geometry, tiles, colours or numbers, the patient's numbers, and faults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from NeuraxisLib.errors import GeometryError, InputError, ModelError
from NeuraxisLib.models import ModelFile, load_model, write_model
from NeuraxisLib.volume import Volume
from StrokeCTPLib import networks
from StrokeCTPLib.map_preprocessing import MapPreprocessing, transit_time
from StrokeCTPLib.networks.classes import classes_of, coded, decoded
from StrokeCTPLib.prediction import predict

LPS = np.diag([-1.0, -1.0, 5.0, 1.0])


class Rule(nn.Module):
    """Core where the second channel (Tmax) is high and the first (CBF) low, penumbra where Tmax alone is."""

    def __init__(self, channels: int = 2):
        super().__init__()
        self.in_channels = channels
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        late, low = (x[:, 1] > 0.5).float(), (x[:, 0] < 0.3).float()
        core, penumbra = late * low, late * (1 - low)
        return 20 * torch.stack([1 - late, penumbra, core], dim=1) + self.bias


class OfTile(nn.Module):
    """Penumbra everywhere in tiles whose first pixel is bright: shows what a tile is."""

    def __init__(self):
        super().__init__()
        self.in_channels = 2
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        bright = (x[:, :1, :1, :1] > 0.5).float().expand(-1, 1, *x.shape[2:])
        return 20 * torch.cat([1 - bright, bright, 0 * bright], dim=1) + self.bias


@dataclass(frozen=True)
class Options:
    device: str = "cpu"
    precision: str = "float32"
    nihss: float | None = None


def model_of(path: Path, kind: type, shown: MapPreprocessing, monkeypatch, **changes) -> ModelFile:
    monkeypatch.setitem(networks.NETWORKS, kind.__name__, f"{__name__}:{kind.__name__}")
    header = {
        "name": path.stem, "title": "t", "task": "stroke", "architecture": {"name": kind.__name__, "arguments": {}},
        "preprocessing": shown.to_dict(), "labels": {"1": "Penumbra", "2": "Core"}, "threshold": 0.5,
        "min_component_ml": 0.0, "uncertainty": {}, "training": {}, "licence": "Apache-2.0", "notice": "", "scores": {},
        **changes,
    }  # fmt: skip
    write_model(path, kind().state_dict(), header)
    return load_model(path, "stroke")


def stroke_maps(matrix: np.ndarray = LPS, shape=(3, 80, 60)) -> dict[str, Volume]:
    """A brain of CBF 60 and Tmax 2 with late tissue of CBF 40, and in its middle of CBF 10."""
    cbf, tmax = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    brain = np.s_[:, 10:70, 8:52]
    cbf[brain], tmax[brain] = 60, 2
    tmax[1:, 20:40, 30:50], cbf[1:, 20:40, 30:50] = 10, 40
    cbf[1:, 25:35, 35:45] = 10
    return {"cbf": Volume(cbf, matrix, "mL/100 g/min"), "tmax": Volume(tmax, matrix, "s")}


NUMBERS = MapPreprocessing(("cbf", "tmax"), (), 64, "numbers", 1.0)


def test_the_map_of_classes_lies_where_the_lesion_is(tmp_path, monkeypatch):
    model = model_of(tmp_path / "rule.safetensors", Rule, NUMBERS, monkeypatch)
    maps = stroke_maps()
    found, facts = predict({**maps, "cbv": maps["cbf"]}, model, Options())
    assert found.shape == (3, 3, 80, 60) and found.dtype == np.float32
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)
    labels = decoded(found, tuple(facts["classes"]))
    truth = np.zeros((3, 80, 60), np.uint8)
    truth[1:, 20:40, 30:50], truth[1:, 25:35, 35:45] = 1, 2
    assert (labels == truth).all()
    assert facts["classes"] == ["background", "penumbra", "core"] and facts["maps"] == ["cbf", "tmax"]


@pytest.mark.parametrize("pixel_mm", [1.3, 2.0])
def test_other_pixel_sizes_and_orientations_come_back_to_the_maps_grid(tmp_path, monkeypatch, pixel_mm):
    model = model_of(tmp_path / "rule.safetensors", Rule, replace(NUMBERS, pixel_mm=pixel_mm), monkeypatch)
    straight, facts = predict(stroke_maps(), model, Options())
    labels = decoded(straight, tuple(facts["classes"]))
    assert abs(int((labels == 2).sum()) - 200) < 60 and (labels[1, 28:32, 38:42] == 2).all() and not labels[0].any()
    turned = {}
    for name, volume in stroke_maps().items():  # columns toward the right and rows toward the front
        matrix = np.diag([1.0, 1.0, 5.0, 1.0])
        matrix[:2, 3] = (-59, -79)
        turned[name] = Volume(volume.array[:, ::-1, ::-1].copy(), matrix, volume.unit)
    again, _ = predict(turned, model, Options())
    np.testing.assert_allclose(again[..., ::-1, ::-1], straight, atol=1e-5)


def test_tiles_stand_side_by_side(tmp_path, monkeypatch):
    shown = replace(NUMBERS, tile=32)
    model = model_of(tmp_path / "tile.safetensors", OfTile, shown, monkeypatch)
    cbf = np.full((1, 64, 64), 10.0, np.float32)
    cbf[0, 0, 32] = 100  # first pixel of the upper right tile
    maps = {"cbf": Volume(cbf, LPS), "tmax": Volume(cbf, LPS)}
    labels = decoded(predict(maps, model, Options())[0], classes_of(3))
    assert (labels[0, :32, 32:] == 1).all() and labels.sum() == 32 * 32


def test_published_networks_see_blue_green_red_and_the_nihss(tmp_path, monkeypatch):
    seen = {}

    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_channels, self.bias = 7, nn.Parameter(torch.zeros(1))

        def forward(self, x):
            seen["x"] = x.clone()
            return x[:, :1] * 0 + self.bias

    monkeypatch.setitem(globals(), "Seen", Seen)
    shown = MapPreprocessing(("cbf", "tmax"), ("nihss",), 64, "colours", 1.0)
    model = model_of(tmp_path / "seen.safetensors", Seen, shown, monkeypatch)
    found, facts = predict(stroke_maps(), model, Options(nihss=12))
    assert found.shape[0] == 2 and facts["scalars"] == {"nihss": 12} and facts["classes"][1] == "hypoperfused"
    x = seen["x"][0].numpy()
    assert x.shape == (7, 64, 64) and (x[6] == 12).all() and x[:6].max() > 200 and (x[:6, 0, 0] == 0).all()
    with pytest.raises(InputError, match="NIHSS is not given"):
        predict(stroke_maps(), model, Options())
    with pytest.raises(InputError, match="NIHSS 43 is outside 0 to 42"):
        predict(stroke_maps(), model, Options(nihss=43))


def test_faults_are_told_in_one_sentence(tmp_path, monkeypatch):
    model = model_of(tmp_path / "rule.safetensors", Rule, NUMBERS, monkeypatch)
    maps = stroke_maps()
    with pytest.raises(InputError, match="map TMAX is missing"):
        predict({"cbf": maps["cbf"]}, model, Options())
    shifted = LPS.copy()
    shifted[0, 3] = 3
    with pytest.raises(GeometryError, match="CBF and TMAX lie on different grids"):
        predict({**maps, "tmax": Volume(maps["tmax"].array, shifted)}, model, Options())
    empty = {name: volume.like(np.full_like(volume.array, np.nan)) for name, volume in maps.items()}
    with pytest.raises(InputError, match="hold no value"):
        predict(empty, model, Options())
    many = model_of(tmp_path / "many.safetensors", Rule, NUMBERS, monkeypatch, classes=["background", "core"])
    with pytest.raises(ModelError, match="names 2 classes but its network has 3"):
        predict(maps, many, Options())
    three = model_of(tmp_path / "three.safetensors", Rule, replace(NUMBERS, maps=("cbf", "tmax", "cbv")), monkeypatch)
    with pytest.raises(ModelError, match="reads 2 channels but its preprocessing makes 3"):
        predict({**maps, "cbv": maps["cbf"]}, three, Options())


def test_codings_of_two_three_and_four_classes_by_hand():
    labels, brain = np.array([0, 0, 1, 2, 7]), np.array([False, True, True, True, False])
    assert coded(labels, brain, 2).tolist() == [0, 0, 1, 1, 0]
    assert coded(labels, brain, 3).tolist() == [0, 0, 1, 2, 0]
    assert coded(labels, brain, 4).tolist() == [0, 1, 2, 3, 0]
    for count, wanted in ((2, [0, 1]), (3, [0, 1, 2]), (4, [0, 0, 1, 2])):
        assert decoded(np.eye(count), classes_of(count)).tolist() == wanted


def test_an_mtt_that_is_missing_is_made_of_volume_and_flow(tmp_path, monkeypatch):
    shown = replace(NUMBERS, maps=("mtt", "tmax"), ranges={"mtt": (0.0, 20.0), "tmax": (0.0, 12.0)})
    model = model_of(tmp_path / "rule.safetensors", Rule, shown, monkeypatch)
    maps = stroke_maps()
    maps["cbv"] = maps["cbf"].like(np.where(np.isnan(maps["cbf"].array), np.nan, np.float32(4)), "mL/100 g")
    found, facts = predict(maps, model, Options())
    labels = decoded(found, classes_of(3))
    assert facts["derived"] == ["mtt"]
    # MTT 60 x 4 / 40 = 6 s is 0.3 of its range; 60 x 4 / 10 = 24 s is all of it
    assert (labels[1, 25:35, 35:45] == 1).all() and not labels[0].any()
    again, facts = predict({**maps, "mtt": maps["cbf"].like(transit_time(maps["cbf"].array, maps["cbv"].array))}, model)
    assert facts["derived"] == [] and np.array_equal(again, found)
    assert transit_time(np.array([10.0, 0.2, 1.0, np.nan]), np.array([2.0, 1, 9, 1])).tolist()[:3] == [12, 0, 60]
