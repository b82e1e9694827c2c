"""Pictures of disc labelling, judged by their pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest

from NeuraxisLib.result import Landmark
from NeuraxisLib.volume import Volume
from Training.evaluation.disc_pictures import (
    FOUND_RGB,
    PIXEL_MM,
    TRUTH_RGB,
    UNSURE_RGB,
    attention_of,
    attention_picture,
    convergence_gif,
    draw_discs,
)

Image = pytest.importorskip("PIL.Image", exc_type=ImportError)


def opened(data: bytes):
    return Image.open(io.BytesIO(data))


@pytest.fixture
def volume() -> Volume:
    """Sagittal 60 mm wide, 90 mm deep, 120 mm high; a bright spot at RAS (5, 0, 0)."""
    matrix = np.array([[0, 0, -3.0, 30], [-1, 0, 0, 45], [0, -1, 0, 60], [0, 0, 0, 1]])
    array = np.zeros((21, 120, 90), np.float32)
    array += np.linspace(0, 20, 120)[None, :, None]
    array[7:10, 57:63, 42:48] = 500
    return Volume(array, matrix)


def test_points_are_drawn_where_the_discs_are(volume):
    found = [Landmark("L4/L5", (5, 0, 0), 0.95), Landmark("L5/S1", (-4, 10, -40), 0.4)]
    pixels = np.asarray(opened(draw_discs(volume, found, {"L4/L5": (5, 0, 0)})))
    rows, columns = pixels.shape[:2]
    assert (columns, rows) == (149, 199)  # 89 and 119 mm, both ends drawn
    y, x = np.nonzero((pixels == TRUTH_RGB).all(axis=2))
    assert abs(x.mean() - 45 / PIXEL_MM) < 1.5 and abs(y.mean() - 60 / PIXEL_MM) < 1.5
    assert pixels[int(60 / PIXEL_MM) - 2, int(45 / PIXEL_MM) - 2].min() > 200  # the spot: the picture follows the spine
    assert (pixels == FOUND_RGB).all(axis=2).any()
    y, x = np.nonzero((pixels == UNSURE_RGB).all(axis=2))
    assert abs(y.mean() - 100 / PIXEL_MM) < 8 and x.min() > 30 / PIXEL_MM


def test_a_case_without_points_is_still_drawn(volume):
    assert opened(draw_discs(volume, [])).size[0] > 50


def test_animation_has_a_frame_per_step_and_colours_for_channels():
    image, maps = np.zeros((64, 64)), np.zeros((2, 16, 16), np.float32)
    maps[0, 3:6, 3:6] = maps[1, 11:14, 11:14] = 1
    gif = opened(convergence_gif(image, [("epoch 1", maps * 0), ("epoch 5", maps), ("epoch 9", maps)]))
    assert gif.n_frames == 3  # equal maps, but the titles differ
    gif.seek(1)
    frame = np.asarray(gif.convert("RGB"), int)
    first, second = frame[18, 18], frame[50, 50]
    assert np.abs(first - second).max() > 100 and max(first.max(), second.max()) > 120


def test_attention_of_a_network():
    torch = pytest.importorskip("torch")
    from SpineDiscLabelLib.networks import hourglass

    torch.manual_seed(0)
    with_attention = hourglass.StackedHourglass(width=16).eval()
    images = torch.rand(1, 3, 64, 64)
    attention = attention_of(with_attention, images)
    assert attention.shape == (1, 16, 16) and 0 <= attention.min() <= attention.max() <= 1
    assert opened(attention_picture(images[0, 0].numpy(), attention[0])).size == (132, 64)
    with pytest.raises(ValueError, match="without attention"):
        attention_of(hourglass.StackedHourglass(width=16, attention=False), images)


def test_convergence_of_a_run(tmp_path, monkeypatch):
    """Three model files of one run become three frames, and the attention a picture."""
    torch = pytest.importorskip("torch")
    from NeuraxisLib import RESEARCH_USE_NOTICE
    from NeuraxisLib.files import write_volume
    from NeuraxisLib.models import write_model
    from SpineDiscLabelLib.discs import DISC_NAMES
    from SpineDiscLabelLib.networks.hourglass import StackedHourglass
    from SpineDiscLabelLib.preprocessing import SagittalPreprocessing
    from Testing.evaluation import disc_convergence

    arguments = {"stacks": 1, "width": 8, "classes": 25, "in_channels": 3}
    header = {
        "name": "tiny", "title": "Tiny", "task": "discs", "threshold": 0.2, "min_component_ml": 0.0, "training": {},
        "architecture": {"name": "StackedHourglass", "arguments": arguments}, "uncertainty": {"kind": "none"},
        "preprocessing": SagittalPreprocessing().to_dict(), "licence": "Apache-2.0", "notice": RESEARCH_USE_NOTICE,
        "labels": {str(number): name for number, name in DISC_NAMES.items()}, "scores": {},
    }  # fmt: skip
    models = [tmp_path / f"step_{number}.safetensors" for number in range(3)]
    for number, path in enumerate(models):
        torch.manual_seed(number)
        write_model(path, StackedHourglass(**arguments).state_dict(), header)
    matrix = np.array([[0, 0, -4.0, 8], [-1.2, 0, 0, 90], [0, -1.2, 0, 100], [0, 0, 0, 1]])
    array = np.random.default_rng(0).integers(0, 900, (5, 160, 150)).astype(np.int16)
    write_volume(Volume(array, matrix), tmp_path / "scan.nii.gz")
    command = ["disc_convergence", str(tmp_path / "scan.nii.gz"), str(tmp_path / "out"), *map(str, models)]
    monkeypatch.setattr("sys.argv", command)
    disc_convergence.main()
    assert opened((tmp_path / "out/convergence.gif").read_bytes()).n_frames == 3
    assert opened((tmp_path / "out/attention.png").read_bytes()).size == (2 * 256 + 4, 256)
