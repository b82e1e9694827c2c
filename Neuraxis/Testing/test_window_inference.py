"""Sliding windows: MONAI's numbers where the whole volume is asked for, and less work where only the brain is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from NeuraxisLib.errors import CancelledError
from NeuraxisLib.task import Progress
from NeuraxisLib.window_inference import WindowPredictor, windows_over


class Tiny(nn.Module):
    """Two convolutions around a norm over the window, so that it matters where windows lie."""

    def __init__(self, outputs: int = 1):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm = nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4)
        self.last = nn.Conv3d(4, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x)))) * 3


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, 41, 37, 19)).astype(np.float32)


def whole(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[1:], bool)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(("patch", "overlap"), [((16, 16, 8), 0.25), ((16, 24, 19), 0.5), ((41, 37, 19), 0.25)])
def test_windows_over_everything_give_what_monai_gives(image, patch, overlap, outputs) -> None:
    inferers = pytest.importorskip("monai.inferers")
    network = Tiny(outputs).eval()
    found = WindowPredictor(network, "cpu", "float32").predict(image, windows_over(whole(image), patch, overlap))
    with torch.inference_mode():
        logits = inferers.sliding_window_inference(torch.from_numpy(image)[None], patch, 2, network, overlap)
    expected = torch.sigmoid(logits)[0] if outputs == 1 else torch.softmax(logits, 1)[0, 1:]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_windows_lie_over_the_brain_alone() -> None:
    mask = np.zeros((100, 90, 40), bool)
    mask[30:60, 20:50, 10:25] = True
    windows = windows_over(mask, (16, 16, 8), 0.25)
    covered = np.zeros(mask.shape, bool)
    for window in windows:
        assert covered[window].shape == (16, 16, 8)
        covered[window] = True
    assert covered[mask].all()
    assert not covered[:30].any() and not covered[60:].any()
    assert len(windows) < len(windows_over(np.ones(mask.shape, bool), (16, 16, 8), 0.25)) / 10


def test_windows_without_brain_are_left_out() -> None:
    mask = np.zeros((64, 64, 8), bool)
    mask[:10, :10] = mask[54:, 54:] = True
    assert len(windows_over(mask, (16, 16, 8), 0.0)) == 2
    assert windows_over(np.zeros((32, 32, 8), bool), (16, 16, 8), 0.25) == []


@pytest.mark.parametrize("at", [0, 7, 31])
def test_a_brain_smaller_than_a_window_has_one_window_inside_the_volume(at: int) -> None:
    mask = np.zeros((32, 32, 8), bool)
    mask[at, at, 3] = True
    (window,) = windows_over(mask, (16, 16, 8), 0.25)
    assert mask[window].any() and mask[window].shape == (16, 16, 8)


def test_outside_the_windows_there_is_nothing(image: np.ndarray) -> None:
    mask = whole(image)
    mask[20:] = False
    windows = windows_over(mask, (16, 16, 8), 0.25)
    found = WindowPredictor(Tiny().eval(), "cpu", "float32").predict(image, windows)[0]
    assert (found[:20] > 0).all()
    assert not found[20:].any()
    assert not WindowPredictor(Tiny().eval(), "cpu", "float32").predict(image, []).any()


def test_mirroring_is_along_the_patient_s_sides(image: np.ndarray) -> None:
    predictor = WindowPredictor(Tiny().eval(), "cpu", "float32")
    windows = [tuple(slice(0, size) for size in image.shape[1:])]
    one = predictor.predict(image, windows, flip=True)
    other = predictor.predict(image[:, ::-1].copy(), windows, flip=True)
    np.testing.assert_allclose(one, other[:, ::-1], atol=1e-5)


def test_progress_cancels_between_windows(image: np.ndarray) -> None:
    seen: list[float] = []
    progress = Progress(lambda fraction, stage: seen.append(fraction), lambda: len(seen) >= 2)
    windows = windows_over(whole(image), (16, 16, 8), 0.25)
    with pytest.raises(CancelledError):
        WindowPredictor(Tiny().eval(), "cpu", "float32").predict(image, windows, progress)
    np.testing.assert_allclose(seen, [0, 1 / len(windows)])


def test_the_processor_takes_over_when_not_even_one_window_fits(image, monkeypatch) -> None:
    original = WindowPredictor._forward

    def forward(self, images, precision):
        if self.device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, images, precision)

    windows = windows_over(whole(image), (16, 16, 8), 0.25)
    expected = WindowPredictor(Tiny().eval(), "cpu", "float32").predict(image, windows)
    monkeypatch.setattr(WindowPredictor, "_forward", forward)
    predictor = WindowPredictor(Tiny().eval(), "cpu", "float32")
    predictor.device, predictor.batch = "cuda", 4
    np.testing.assert_allclose(predictor.predict(image, windows), expected, atol=1e-6)
    assert predictor.device == "cpu" and "ran out of memory" in predictor.warnings[0]


@pytest.mark.parametrize(("logits", "expected"), [((9.0, 9.5), "bfloat16"), ((0.0, 0.5), "float32")])
def test_precisions_are_compared_by_probabilities(image, monkeypatch, logits, expected) -> None:
    def timed(self, image, precision, give_up_s=np.inf):
        rough = precision == "bfloat16"
        return torch.full((1, 1, 2, 2, 2), logits[rough]), 0.5 if rough else 1.0

    monkeypatch.setattr(WindowPredictor, "_timed", timed)
    predictor = WindowPredictor(Tiny().eval(), "cpu", "auto")
    predictor.predict(image, windows_over(whole(image), (41, 37, 19), 0.25))
    assert predictor.precision == expected
