"""A folder that nnU-Net trained, as one model file: its plan and data set description in the header, and its weights.

Checkpoints are read by torch's restricted reader; besides tensors they may hold numbers of numpy, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuraxisLib.checkpoint_torch import read_torch
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.models import write_model
from NeuraxisLib.nnunet_inference import ARCHITECTURE, KIND, check_plan, nnunet_module

if TYPE_CHECKING:
    from torch import Tensor

#: What running needs of ``plans.json``; the rest says where and on what the plan was made.
_PLAN = ("plans_name", "label_manager", "transpose_forward", "transpose_backward", "image_reader_writer",
         "foreground_intensity_properties_per_channel", "experiment_planner_used")  # fmt: skip
#: Least volume in mL that is reported.
MIN_COMPONENT_ML = 0.1


def import_trained(
    trained: Path,
    output: Path,
    task: str,
    folds: Sequence[str] = ("0",),
    checkpoint: str = "checkpoint_final.pth",
    **card: str,
) -> None:
    """Write a model file from a folder such as ``nnUNetTrainer__nnUNetPlans__3d_fullres``.

    Args:
        trained: the folder, with ``plans.json``, ``dataset.json`` and ``fold_<n>``.
        output: model file to write.
        task: the task it will serve; its structure is the one label of the data set.
        folds: their networks' outputs are averaged, as nnU-Net does.
        checkpoint: which of each fold.
        card: ``name``, ``title``, ``licence`` and ``notice`` of the model file.

    Raises:
        InputError: no such folder, or an incomplete one.
        ModelError: a checkpoint holds more than weights, or they do not fit the plan.
        OutputError: the model file cannot be written.
    """
    configuration = trained.name.rpartition("__")[2]
    plans, dataset = _json(trained / "plans.json"), _json(trained / "dataset.json")
    foreground = [name for name, value in dataset.get("labels", {}).items() if value == 1]
    if len(foreground) != 1 or len(set(dataset["labels"]) - {"background", "ignore"}) != 1:
        raise InputError(f"'{trained.name}' has more than one structure; train on one label.")
    tensors, facts = {}, {}
    for fold in folds:
        found, facts = _checkpoint(trained / f"fold_{fold}" / checkpoint)
        tensors |= {f"fold_{fold}.{name}": tensor for name, tensor in _each_once(found).items()}
    arguments = {
        "configuration": _resolved(plans, configuration, trained.name),
        "plans": {"dataset_name": "", **{key: plans[key] for key in _PLAN if key in plans}},
        "dataset": {key: dataset[key] for key in ("channel_names", "labels", "file_ending")},
        "mirroring_axes": [int(axis) for axis in facts.get("inference_allowed_mirroring_axes") or ()],
        "folds": list(folds),
    }
    check_plan(output.name, arguments)
    training = {
        "trainer": str(facts.get("trainer_name", "")),
        "configuration": configuration,
        "epochs": int(facts.get("current_epoch", 0)),
        "data": f"{dataset.get('numTraining', 'an unknown number of')} scans of the trainer's own data set",
    }
    write_model(output, tensors, _header(task, card, arguments, foreground[0], training))
    _check_that_it_loads(output)


def _header(task: str, card: dict[str, str], arguments: dict, label: str, training: dict) -> dict:
    return {
        **card,
        "task": task,
        "architecture": {"name": ARCHITECTURE, "arguments": arguments},
        "preprocessing": {"kind": KIND},
        "labels": {"1": label},
        "threshold": 0.5,
        "min_component_ml": MIN_COMPONENT_ML,
        "uncertainty": {"kind": "entropy"},
        "training": training,
        "scores": {},
    }


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(
            f"'{path.parent.name}' has no readable {path.name}; choose a folder that nnU-Net trained, such as "
            "nnUNetTrainer__nnUNetPlans__3d_fullres."
        )
    return content


def _resolved(plans: dict, configuration: str, folder: str) -> dict:
    """A configuration of the plan, with what it inherits."""
    handler = nnunet_module("utilities.plans_handling.plans_handler")
    try:
        return handler.PlansManager(plans).get_configuration(configuration).configuration
    except (KeyError, ValueError, RuntimeError):
        raise InputError(
            f"The plan of '{folder}' has no configuration '{configuration}'; keep the folder's name."
        ) from None


def _checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, what else it says) of a checkpoint; nothing in it is run."""
    import torch

    if not path.is_file():
        raise InputError(f"There is no '{path.name}' in '{path.parent.name}'; train this fold to its end first.")
    numbers = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    scalar = np.float64(0).__reduce__()[0]
    with torch.serialization.safe_globals([scalar, np.dtype, *numbers]):
        weights = read_torch(path)
        facts = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    kept = ("trainer_name", "current_epoch", "inference_allowed_mirroring_axes")
    return weights, {key: facts.get(key) for key in kept}


def _each_once(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights without those that another name has already given."""
    kept = {}
    for name, tensor in weights.items():
        kept.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), (name, tensor))
    return dict(kept.values())


def _check_that_it_loads(output: Path) -> None:
    """Build the network from what was written; a file that does not fit its plan is removed again."""
    from NeuraxisLib.models import load_model
    from NeuraxisLib.nnunet_inference import load_nnunet

    try:
        load_nnunet(load_model(output), "cpu")
    except ModelError:
        output.unlink(missing_ok=True)
        raise
