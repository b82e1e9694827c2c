"""How the heat maps of a disc network come about in training, and where its attention lies, on one scan.

    python Testing/evaluation/disc_convergence.py SCAN FOLDER MODEL [MODEL ...]

MODELs are model files of one training run, in its order. Writes ``convergence.gif`` (a frame per model, every disc in a
colour of its own) and, where the last network has attention, ``attention.png``. Shown is the place where the last
network sees most.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "Neuraxis", ROOT / "SpineDiscLabel"):
    sys.path.insert(0, str(folder))

from NeuraxisLib.atomic import atomic_write  # noqa: E402
from NeuraxisLib.errors import ModelError  # noqa: E402
from NeuraxisLib.files import read_volume  # noqa: E402
from NeuraxisLib.inference import build_network  # noqa: E402
from NeuraxisLib.models import ModelFile, load_model  # noqa: E402
from NeuraxisLib.volume import Volume  # noqa: E402
from SpineDiscLabelLib.networks import NETWORKS  # noqa: E402
from SpineDiscLabelLib.preprocessing import SagittalPreprocessing  # noqa: E402
from SpineDiscLabelLib.sagittal import sagittal_images  # noqa: E402
from Training.evaluation.disc_pictures import attention_of, attention_picture, convergence_gif  # noqa: E402


@dataclass(frozen=True)
class Convergence:
    """What the models of a run make of one place of a scan.

    Attributes:
        image: (rows, columns) as the networks see it.
        heat_maps: per model (classes, rows / 4, columns / 4), 0..1.
        attention: (rows / 4, columns / 4) of the last, or None if it has none.
    """

    image: np.ndarray
    heat_maps: list[np.ndarray]
    attention: np.ndarray | None


def converge(volume: Volume, models: Sequence[ModelFile]) -> Convergence:
    """Run every model on the place where the last one sees most.

    Raises:
        ModelError: the models see images differently, so they are not of one run.
    """
    shown = SagittalPreprocessing.from_dict(models[-1].header["preprocessing"])
    if any(model.header["preprocessing"] != models[-1].header["preprocessing"] for model in models):
        raise ModelError("The models prepare images differently, so they are not of one run; name models of one run.")
    images, last = sagittal_images(volume, shown), build_network(models[-1], NETWORKS)
    places = [(position, tile) for position in images.positions_mm for tile in images.tiles()]
    seen = [float(_maps(last, images.stack([position], tile)).sum()) for position, tile in places]
    position, tile = places[int(np.argmax(seen))]
    stack = images.stack([position], tile)
    attention = None
    if last.attention is not None:
        attention = shown.from_network(attention_of(last, torch.from_numpy(stack)))[0]
    maps = [shown.from_network(_maps(build_network(model, NETWORKS), stack)) for model in models]
    return Convergence(shown.from_network(stack)[0, stack.shape[1] // 2], maps, attention)


def _maps(network: torch.nn.Module, stack: np.ndarray) -> np.ndarray:
    """(classes, rows, columns) heat maps of the first image."""
    with torch.inference_mode():
        return network.scores(torch.from_numpy(stack))[-1][0].clamp(0, 1).numpy()


def main() -> None:
    """Read the command line and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, help="a sagittal spine MR")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("models", type=Path, nargs="+", help="model files of one run, in its order")
    options = parser.parse_args()
    found = converge(read_volume(options.scan), [load_model(path, "discs") for path in options.models])
    options.folder.mkdir(parents=True, exist_ok=True)
    frames = list(zip([path.stem for path in options.models], found.heat_maps))
    pictures = {"convergence.gif": convergence_gif(found.image, frames)}
    if found.attention is not None:
        pictures["attention.png"] = attention_picture(found.image, found.attention)
    for name, data in pictures.items():
        with atomic_write(options.folder / name) as temporary:
            temporary.write_bytes(data)


if __name__ == "__main__":
    main()
