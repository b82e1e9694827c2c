"""Strokes judged: one structure of the truth, networks and threshold rules on stored maps, micro and macro by group."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from NeuraxisLib.errors import InputError
from NeuraxisLib.models import write_model
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib import networks
from StrokeCTPLib.map_preprocessing import MapPreprocessing
from Training import evaluate
from Training.evaluation.cases import StoreCases
from Training.evaluation.overlap import Overlap
from Training.evaluation.stroke_methods import RuleMethod, stroke_method
from Training.store import IGNORED, StoredCase
from Training.store_writer import StoreWriter

GRID = np.diag([-2.0, -2.0, 5.0, 1.0])  # voxels of 0.02 mL


class Late(nn.Module):
    """Core where Tmax is over half of its range and CBF under 0.3 of its, penumbra where only the former is."""

    def __init__(self):
        super().__init__()
        self.in_channels, self.bias = 2, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        late, low = (x[:, 1] > 0.5).float(), (x[:, 0] < 0.3).float()
        return 20 * torch.stack([1 - late, late * (1 - low), late * low], dim=1) + self.bias


def case(name: str, group: str, found: np.ndarray, truth: np.ndarray, **changes) -> StoredCase:
    """Maps in which a rule finds the labels ``found``, and a truth, both (k, 32, 32)."""
    brain = np.zeros(found.shape, bool)
    brain[:, 2:30, 2:30] = True
    cbf = np.choose(found, [60.0, 40.0, 10.0])
    tmax = np.choose(found, [1.0, 9.0, 9.0])
    image = Volume(np.stack([cbf, tmax]).astype(np.float32) * brain, GRID, "maps")
    return StoredCase(name, name, group, "test", image, truth, brain, channels=("cbf", "tmax"), **changes)


def boxes(**places) -> np.ndarray:
    """Labels (2, 32, 32): ``core=(rows, columns)`` and ``penumbra=...`` of both slices."""
    labels = np.zeros((2, 32, 32), np.uint8)
    for name, (rows, columns) in places.items():
        labels[:, rows[0] : rows[1], columns[0] : columns[1]] = {"penumbra": 1, "core": 2}[name]
    return labels


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """LVO: core of 2 x 100 voxels found wholly, and of 2 x 20 found by half; Non-LVO: none there, 2 x 10 found."""
    path = tmp_path_factory.mktemp("store") / "maps.h5"
    unknown = boxes(core=((5, 10), (5, 9)))
    unknown[:, 20:22] = IGNORED
    with StoreWriter(path) as writer:
        writer.add(case("a", "LVO", boxes(core=((5, 15), (5, 15))), boxes(core=((5, 15), (5, 15)))))
        writer.add(case("b", "LVO", boxes(core=((5, 10), (5, 7))), unknown))
        writer.add(case("c", "Non-LVO", boxes(core=((5, 10), (5, 7))), boxes(penumbra=((5, 9), (5, 9)))))
    return path


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    monkeypatch.setitem(networks.NETWORKS, "Late", f"{__name__}:Late")
    shown = MapPreprocessing(("cbf", "tmax"), (), 32, "numbers", 2.0)
    header = {
        "name": "late", "title": "Late", "task": "stroke", "architecture": {"name": "Late", "arguments": {}},
        "preprocessing": shown.to_dict(), "labels": {}, "threshold": 0.5, "min_component_ml": 0.0, "uncertainty": {},
        "training": {}, "licence": "Apache-2.0", "notice": "Research use only.", "scores": {},
        "classes": ["background", "penumbra", "core"],
    }  # fmt: skip
    path = tmp_path / "late.safetensors"
    write_model(path, Late().state_dict(), header)
    return path


def test_one_structure_of_the_truth_is_judged(store):
    of_core, both = StoreCases(store, (), (2,)), StoreCases(store, (), (1, 2))
    assert of_core.case("a").truth.sum() == 200 and not of_core.case("c").truth.any()
    assert both.case("c").truth.sum() == 32 and set(both.case("c").channels) == {"cbf", "tmax"}
    b = of_core.case("b")
    assert b.truth.sum() == 40 and not b.known[:, 20:22].any() and b.image.array.ndim == 3


def test_micro_and_macro_by_group_by_hand(store, model, tmp_path):
    output = tmp_path / "core"
    words = ["--task", "stroke", "--structure", "core", "--store", str(store), "--output", str(output), "--no-pictures"]
    words += ["--model", f"Network={model},precision=float32", "--model", "DEFUSE=defuse3", "--device", "cpu"]
    assert evaluate.main(words) == 0
    rows = list(csv.DictReader((output / "table_stavanger.csv").open(encoding="utf-8-sig")))
    columns = list(rows[0])
    told = {(row[columns[0]], row[columns[1]]): [row[name] for name in columns[2:]] for row in rows}
    for method in ("Network", "DEFUSE"):
        # LVO: 200 of 200 and 20 of 40 found; together 2 x 220 / (220 + 240), mean of 1 and 2 x 20 / (20 + 40)
        cases, micro, macro, precision, recall, *_ = told["LVO", method]
        assert (cases, micro, precision, recall) == ("2", "0.957", "1.000", "0.917")
        assert macro.startswith("0.833±")
        # Non-LVO: 20 false voxels, nothing there
        assert told["Non-LVO", method][:3] == ["1", "0.000", "0.000±–"]
        # all: 2 x 220 / (240 + 240); mean of 1, 2/3 and 0; volumes off by 0, -0.4 and 0.4 mL
        assert told["all", method][1:3] == ["0.917", "0.556±0.509"]
        assert told["all", method][-1] == "0.3±0.2"
    summary = json.loads((output / "summary.json").read_text())
    pooled = next(s for s in summary["summaries"] if s["kind"] == "all" and s["method"] == "Network")
    assert pooled["together"]["dice"] == pytest.approx(2 * 220 / 480)


def test_penumbra_and_hypoperfused(store, model):
    methods = [
        stroke_method("n", str(model), {"device": "cpu"}, "penumbra"),
        RuleMethod("r", "bathla_2020", "penumbra"),
    ]
    b = StoreCases(store, (), (1,)).case("b")
    for method in methods:
        assert not method.predict(b, Progress()).mask.any()
    whole = RuleMethod("r", "bathla_2020", "hypoperfused").predict(b, None)
    assert whole.mask.sum() == 20 and whole.region.sum() == 2 * 28 * 28


def test_what_cannot_be_judged_is_told(store, model, tmp_path):
    with pytest.raises(InputError, match="rule 'wintermark_2006' does not define penumbra"):
        stroke_method("w", "wintermark_2006", {}, "penumbra")
    with pytest.raises(InputError, match="no option 'speed'"):
        stroke_method("n", str(model), {"speed": 3}, "core")
    pictures = tmp_path / "rgb.h5"
    with StoreWriter(pictures) as writer:
        channels = tuple(f"{m}_{c}" for m in ("cbf", "tmax") for c in ("red", "green", "blue"))
        image = Volume(np.full((6, 2, 32, 32), 9, np.uint8), GRID, "rgb")
        writer.add(StoredCase("p", "p", "", "", image, boxes(core=((5, 9), (5, 9))), channels=channels))
    of_pictures = StoreCases(pictures, (), (2,)).case("p")
    with pytest.raises(InputError, match="holds no maps in numbers"):
        RuleMethod("r", "syngo", "core").predict(of_pictures, None)
    with pytest.raises(InputError, match="the network reads numbers"):
        stroke_method("n", str(model), {"device": "cpu"}, "core").predict(of_pictures, None)


def test_pictures_go_to_networks_that_read_colours(tmp_path, monkeypatch):
    class Blue(nn.Module):
        """Core where the first map is bluer than 100 (blue comes first)."""

        def __init__(self):
            super().__init__()
            self.in_channels, self.bias = 6, nn.Parameter(torch.zeros(1))

        def forward(self, x):
            core = (x[:, 0] > 100).float()
            return 20 * torch.stack([1 - core, 0 * core, core], dim=1) + self.bias

    monkeypatch.setitem(globals(), "Blue", Blue)
    monkeypatch.setitem(networks.NETWORKS, "Blue", f"{__name__}:Blue")
    shown = MapPreprocessing(("cbf", "tmax"), (), 32, "colours", 2.0)
    header = {
        "name": "blue", "title": "Blue", "task": "stroke", "architecture": {"name": "Blue", "arguments": {}},
        "preprocessing": shown.to_dict(), "labels": {}, "threshold": 0.5, "min_component_ml": 0.0, "uncertainty": {},
        "training": {}, "licence": "Apache-2.0", "notice": "", "scores": {},
    }  # fmt: skip
    write_model(tmp_path / "blue.safetensors", Blue().state_dict(), header)
    array = np.full((6, 2, 32, 32), 9, np.uint8)
    array[2, :, 5:9, 5:9] = 200
    names = tuple(f"{m}_{c}" for m in ("cbf", "tmax") for c in ("red", "green", "blue"))
    with StoreWriter(tmp_path / "rgb.h5") as writer:
        image = Volume(array, GRID, "rgb")
        writer.add(StoredCase("p", "p", "", "", image, boxes(core=((5, 9), (5, 9))), channels=names))
    judged = StoreCases(tmp_path / "rgb.h5", (), (2,)).case("p")
    found = stroke_method("b", str(tmp_path / "blue.safetensors"), {"device": "cpu"}, "core").predict(judged, None)
    assert (found.mask == judged.truth).all() and found.probability[judged.truth].min() > 0.9


def test_overlaps_add_up():
    assert Overlap(1, 2, 3, 4) + Overlap(10, 20, 30, 40) == Overlap(11, 22, 33, 44)
