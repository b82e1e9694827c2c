"""nnU-Net's own code around a network of ours: its preprocessing, its windows with mirroring, its export.

The plan is that of a 2-D configuration with the network's patch and pixel size; everything else is nnU-Net's default:
windows that overlap by half with Gaussian weights, mirroring along both axes, cubic resampling of the image and linear
resampling of every class's logits back to the grid. Only the channels are ours, as the network was trained on them.
"""

from __future__ import annotations

import io
import math
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from NeuraxisLib.files import read_volume
from NeuraxisLib.models import load_model
from Testing.benchmarks.benchmark_inference import network_of, windowed
from Testing.benchmarks.turns import Run

_DATASET = {"labels": {"background": 0, "Hemorrhage": 1}, "channel_names": {"0": "CT"}}


class TwoHeads(nn.Module):
    """A network of one logit as nnU-Net wants it: a head for the background, whose arg-max is at the threshold."""

    def __init__(self, network: nn.Module, threshold: float):
        super().__init__()
        self.network, self.level = network, math.log(threshold / (1 - threshold))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, rows, columns) -> (n, 2, rows, columns)."""
        logits = self.network(x)
        return torch.cat([torch.full_like(logits, self.level), logits], dim=1)


def plan(pixel_mm: float, size: int) -> dict[str, Any]:
    """The entries of a plan that prediction reads."""
    linear = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "spacing": [pixel_mm, pixel_mm], "patch_size": [size, size], "normalization_schemes": ["NoNormalization"],
        "use_mask_for_norm": [False], "preprocessor_name": "DefaultPreprocessor",
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": {**linear, "order": 3},
        "resampling_fn_seg": "resample_data_or_seg_to_shape", "resampling_fn_seg_kwargs": {**linear, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape", "resampling_fn_probabilities_kwargs": linear,
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
    }  # fmt: skip
    return {
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}}, "configurations": {"2d": configuration},
    }  # fmt: skip


def peer(scan: Path, model_path: Path, mirrored: bool) -> Run:
    """One fold; answers with the mask's voxels."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    volume, model = read_volume(scan), load_model(model_path)
    network, preprocessing, pixel_mm = network_of(model, volume)
    plans = PlansManager(plan(pixel_mm, preprocessing.size))
    configuration = plans.get_configuration("2d")
    heads = TwoHeads(network, model.header["threshold"])
    with redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(
            use_mirroring=mirrored, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
        )
        state = {key: value.clone() for key, value in heads.state_dict().items()}
        predictor.manual_initialization(heads, plans, configuration, [state], _DATASET, "peer", (0, 1))
    preprocessor = configuration.preprocessor_class(verbose=False)

    def run() -> int:
        facts: dict[str, Any] = {"spacing": list(volume.spacing_mm[::-1])}
        array = volume.array.astype(np.float32)[None]
        data, _, facts = preprocessor.run_case_npy(array, None, facts, plans, configuration, _DATASET)
        channels = windowed(torch.from_numpy(data[0]), preprocessing).permute(1, 0, 2, 3)
        with redirect_stdout(io.StringIO()):
            logits = predictor.predict_logits_from_preprocessed_data(channels.contiguous())
        found = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.cpu().float(), plans, configuration, predictor.label_manager, facts,
            num_threads_torch=torch.get_num_threads(),
        )  # fmt: skip
        return int(np.count_nonzero(found))

    return run
