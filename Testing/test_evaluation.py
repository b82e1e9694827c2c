"""The evaluation script's own arithmetic, and its tables from a result folder made by the task's own writer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib.files import write_volume
from NeuraxisLib.result import Measurement, Result, ScalarMap
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.volume import Volume
from Testing.evaluation import evaluate_hemorrhage as evaluation
from Testing.evaluation.evaluate_hemorrhage import LabelledSlice


def test_a_kind_is_held_against_slices_without_any_bleed() -> None:
    slices = [
        LabelledSlice(frozenset({"Subdural"}), 0.9, True),
        LabelledSlice(frozenset({"Subdural", "Epidural"}), 0.2, False),
        LabelledSlice(frozenset({"Epidural"}), 0.95, True),
        LabelledSlice(frozenset(), 0.3, True),
        LabelledSlice(frozenset(), 0.1, False),
    ]
    assert evaluation.rates(slices, "Subdural") == (2, 2, 0.5, 0.5, 0.75)
    positives, negatives, sensitivity, specificity, auc = evaluation.rates(slices, None)
    assert (positives, negatives, specificity) == (3, 2, 0.5)
    assert sensitivity == pytest.approx(2 / 3)
    assert auc == pytest.approx(5 / 6)


def example(score: float, marked: bool) -> Result:
    volume = Volume(np.zeros((3, 20, 20), np.int16), np.diag([-1.0, -1.0, 5.0, 1.0]), "HU")
    probability, labels = np.zeros((3, 20, 20), np.float32), np.zeros((3, 20, 20), np.uint8)
    probability[1] = score
    labels[1, 5:15, 5:15] = marked
    return Result(
        task="hemorrhage",
        source=volume,
        labels=volume.like(labels),
        maps={"probability": ScalarMap(volume.like(probability), "Probability", (0.0, 1.0))},
        measurements=[Measurement("Total volume", float(labels.sum()) * 0.005, "mL", (0.1, 0.9))],
    )


def test_scores_are_smoothed_in_plane_only() -> None:
    np.testing.assert_allclose(evaluation.slice_scores(example(0.5, False)), [0, 0.5, 0], atol=1e-6)
    spot = example(0.0, False)
    spot.maps["probability"].volume.array[2, 10, 10] = 1.0
    # a single pixel under a Gaussian of sigma 2 pixels: its peak is 1 / (2 pi 4)
    np.testing.assert_allclose(evaluation.slice_scores(spot), [0, 0, 1 / (8 * np.pi)], atol=2e-3)


def test_tables_from_result_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    for name in ("planted", "head_ct"):
        (data / name).mkdir(parents=True)
    results.mkdir()
    truth = np.zeros((3, 20, 20), np.uint8)
    truth[1, 5:15, 5:17] = 1
    made = example(0.9, True)
    write_volume(made.source, data / "planted" / "x.nii.gz")
    write_volume(made.source.like(truth), data / "planted" / "x_truth.nii.gz")
    labels = {"ctich_001": {"slices": 3, "positive_slices": {"Subdural": [1]}}}
    (data / "head_ct" / "ctich_labels.json").write_text(json.dumps(labels))
    for scan in ("planted-x", "head_ct-ctich_001", "dicom-ge_head_tilted"):
        write_result(made, results / scan, report=False)
    monkeypatch.setattr("sys.argv", ["evaluate", str(results), "--data", str(data)])
    evaluation.main()
    printed = capsys.readouterr().out
    assert f"{'x':8} {200 / 220:6.3f} {0.6:9.2f} {0.5:9.2f}  -16.7%  0.1 to 0.9 holds truth" in printed
    assert "Dice 0.909 (goal: at least 0.90): reached" in printed
    assert "volume error 16.7% (goal: at most 10%): NOT reached" in printed
    assert f"{'ge_head_tilted':24} {0.5:12.2f}" in printed
    assert f"{'Subdural':18} {1:7d} {1:12.3f} {1:12.3f} {1:6.3f}" in printed
    assert f"{'no bleed':18} {2:7d}" in printed
