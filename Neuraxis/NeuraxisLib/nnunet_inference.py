"""Running a trained nnU-Net by nnunetv2's own code, from a model file that holds its plan and its weights.

    network = load_nnunet(model, device)
    probability = network.probability(axial, progress)     # of the foreground, on the volume's own grid

A plan names classes and functions as text, and nnunetv2 imports whatever is named there. So that a model file cannot
have anything run that it likes, each name must be on the lists below; a plan that asks for more is refused.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuraxisLib.errors import DependencyError, ModelError
from NeuraxisLib.volume import Volume

if TYPE_CHECKING:
    from torch import nn

    from NeuraxisLib.models import ModelFile
    from NeuraxisLib.task import Progress

#: ``architecture.name`` and ``preprocessing.kind`` of such model files.
ARCHITECTURE, KIND = "nnUNet", "nnunet"
_UNETS = "dynamic_network_architectures.architectures.unet."
#: Entry of a configuration -> what it may name.
_ALLOWED = {
    "preprocessor_name": {"DefaultPreprocessor"},
    "resampling_fn_data": {"resample_data_or_seg_to_shape"},
    "resampling_fn_seg": {"resample_data_or_seg_to_shape"},
    "resampling_fn_probabilities": {"resample_data_or_seg_to_shape"},
}
_NORMALISATIONS = {"CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization", "NoNormalization"}
_NETWORKS = {_UNETS + name for name in ("PlainConvUNet", "ResidualEncoderUNet")}
_LAYERS = {
    None, "torch.nn.LeakyReLU", "torch.nn.ReLU",
    *(f"torch.nn.modules.conv.Conv{n}d" for n in (2, 3)),
    *(f"torch.nn.modules.instancenorm.InstanceNorm{n}d" for n in (2, 3)),
    *(f"torch.nn.modules.batchnorm.BatchNorm{n}d" for n in (2, 3)),
    *(f"torch.nn.modules.dropout.Dropout{n}d" for n in (2, 3)),
}  # fmt: skip


def nnunet_module(name: str) -> ModuleType:
    """A module of nnunetv2; DependencyError if it is not installed."""
    try:
        return import_module(f"nnunetv2.{name}")
    except ImportError as error:
        raise DependencyError(
            f"This model is an nnU-Net and needs the package nnunetv2 ({error.name or error} is missing); install it "
            "beside PyTorch, or choose another model."
        ) from None


def stack_of(axial: Volume) -> tuple[np.ndarray, list[float]]:
    """What nnU-Net is shown of a volume, in training and use alike: (array (k, j, i), spacing in mm in that order).

    Slices at equal gaps, linear between them where the series has others; the shear of a tilted gantry is left as it
    is, for nnU-Net knows no geometry but spacing.
    """
    regular = axial.regular()
    return regular.array, [float(step) for step in regular.spacing_mm[::-1]]


def check_plan(name: str, arguments: Mapping[str, Any]) -> None:
    """ModelError, naming the entry, unless a plan asks only for what is listed in this file.

    Args:
        name: of the model, for the message.
        arguments: ``configuration``: nnU-Net's, with what it inherits; ``plans``, ``dataset``: its files of that name;
            ``mirroring_axes``; ``folds``.
    """
    try:
        configuration, plans = arguments["configuration"], arguments["plans"]
        architecture = configuration["architecture"]
        keywords = architecture["arch_kwargs"]
        asked = [
            ("network_class_name", architecture["network_class_name"], _NETWORKS),
            *((key, keywords[key], _LAYERS) for key in architecture["_kw_requires_import"]),
            *((key, configuration[key], names) for key, names in _ALLOWED.items()),
            *(("normalization_schemes", scheme, _NORMALISATIONS) for scheme in configuration["normalization_schemes"]),
            ("label_manager", plans.get("label_manager", "LabelManager"), {"LabelManager"}),
            ("previous_stage", configuration.get("previous_stage"), {None}),
            ("labels", all(isinstance(value, int) for value in arguments["dataset"]["labels"].values()), {True}),
            ("folds", 1 <= len(arguments["folds"]) <= 20, {True}),
        ]
        for entry, value, names in asked:
            if value not in names:
                raise ModelError(
                    f"The nnU-Net plan of the model '{name}' asks for '{value}' as its '{entry}', which is not "
                    "supported here; train with nnU-Net's default planner."
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"The nnU-Net plan of the model '{name}' is incomplete ({error}); import it again.") from None


@dataclass
class NnUNet:
    """A trained nnU-Net, ready to run.

    Attributes:
        predictor: nnunetv2's own.
        facts: for provenance.
    """

    predictor: Any
    facts: dict = field(default_factory=dict)

    def probability(self, axial: Volume, progress: Progress) -> np.ndarray:
        """Probability of the foreground, float32 (k, j, i) on the grid of the volume.

        Args:
            axial: the scan with axial slices, as the training set was exported.
            progress: told at every window; cancels there.
        """
        array, spacing = stack_of(axial)
        found = self._of_stack(array.astype(np.float32), spacing, progress)
        return found if len(found) == axial.slice_count else _at_slices(found, axial)

    def _of_stack(self, array: np.ndarray, spacing: list[float], progress: Progress) -> np.ndarray:
        import torch

        used = self.predictor
        plans, configuration = used.plans_manager, used.configuration_manager
        properties: dict[str, Any] = {"spacing": spacing}
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            array[None], None, properties, plans, configuration, used.dataset_json
        )
        with redirect_stdout(io.StringIO()), self._told(data.shape[1:], progress):
            logits = used.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu().float()
        export = nnunet_module("inference.export_prediction")
        _, probabilities = export.convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, plans, configuration, used.label_manager, properties, return_probabilities=True
        )
        return np.ascontiguousarray(1 - np.asarray(probabilities[0], np.float32))

    @contextmanager
    def _told(self, shape: tuple[int, ...], progress: Progress) -> Iterator[None]:
        """Report every pass of the network, and let it be cancelled there."""
        used = self.predictor
        patch = used.configuration_manager.patch_size
        padded = [*shape[: len(shape) - len(patch)], *map(max, shape[-len(patch) :], patch)]
        mirrored = 2 ** len(used.allowed_mirroring_axes or ())
        with redirect_stdout(io.StringIO()):
            windows = len(used._internal_get_sliding_window_slicers(tuple(padded)))
        total, done = windows * mirrored * len(used.list_of_parameters), itertools.count()
        hook = used.network.register_forward_pre_hook(
            lambda *_: progress(min(next(done) / total, 1.0), "Finding blood")
        )
        try:
            yield
        finally:
            hook.remove()


def load_nnunet(model: ModelFile, device: str = "auto") -> NnUNet:
    """The nnU-Net of a model file.

    Raises:
        ModelError: the plan asks for what is not supported, or the weights do not fit it.
        DependencyError: nnunetv2 is not installed.
        InputError: no such device.
    """
    arguments = model.header["architecture"]["arguments"]
    check_plan(model.name, arguments)
    prediction = nnunet_module("inference.predict_from_raw_data")
    import torch

    from NeuraxisLib.inference import choose_device, torch_device

    chosen = torch_device(choose_device(device))
    handler = nnunet_module("utilities.plans_handling.plans_handler")
    plans = handler.PlansManager({**arguments["plans"], "configurations": {"own": arguments["configuration"]}})
    configuration, dataset = plans.get_configuration("own"), arguments["dataset"]
    network = _network(model, plans, configuration, dataset)
    members = _members(model, network, arguments["folds"])
    with redirect_stdout(io.StringIO()):
        predictor = prediction.nnUNetPredictor(
            perform_everything_on_device=chosen == "cuda", device=torch.device(chosen), allow_tqdm=False
        )
        axes = tuple(arguments["mirroring_axes"]) or None
        predictor.manual_initialization(network, plans, configuration, members, dataset, ARCHITECTURE, axes)
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": chosen, "seed": None}
    return NnUNet(predictor, facts)


def _members(model: ModelFile, network: nn.Module, folds: list) -> list[dict]:
    """The state of the network for every fold; the file keeps their weights under ``fold_<name>.``.

    nnU-Net's networks list the same weights under several names; the file has each once, and the network, which is
    loaded along the way, knows which belong together.
    """
    weights, members = model.weights(), []
    for fold in folds:
        prefix = f"fold_{fold}."
        own = {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
        try:
            unknown = network.load_state_dict(own, strict=False, assign=True).unexpected_keys
        except RuntimeError as error:
            raise _misfit(model, error) from None
        members.append(network.state_dict())
        given = {value.data_ptr() for value in own.values()}  # what is left of another fold is not this one's
        lacking = [key for key, value in members[-1].items() if value.is_meta or value.data_ptr() not in given]
        if unknown or lacking:
            raise _misfit(model, f"'{(unknown or lacking)[0]}' of fold {fold}")
    network.load_state_dict({key: value.clone() for key, value in members[0].items()}, assign=True)
    return members


def _misfit(model: ModelFile, reason: object) -> ModelError:
    words = " ".join(str(reason).split())[:200]
    return ModelError(f"The weights of the model '{model.name}' do not fit its plan ({words}); import it again.")


def _network(model: ModelFile, plans: Any, configuration: Any, dataset: dict) -> nn.Module:
    """The network of a plan, without weights."""
    import torch

    build = nnunet_module("utilities.get_network_from_plans").get_network_from_plans
    labels = plans.get_label_manager(dataset)
    try:
        with torch.device("meta"):  # shapes only: a plan cannot make us reserve memory for a monster
            network = build(
                configuration.network_arch_class_name,
                configuration.network_arch_init_kwargs,
                configuration.network_arch_init_kwargs_req_import,
                len(dataset["channel_names"]),
                labels.num_segmentation_heads,
                allow_init=False,
                deep_supervision=False,
            )
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise _misfit(model, error) from None
    return network.requires_grad_(False).eval()


def _at_slices(values: np.ndarray, axial: Volume) -> np.ndarray:
    """Values on equal gaps, read at the slices of the volume (linear between)."""
    positions = axial.slice_positions_mm
    at = (positions - positions[0]) / (positions[-1] - positions[0]) * (len(values) - 1)
    lower = np.clip(at.astype(int), 0, len(values) - 2)
    weight = (at - lower)[:, None, None].astype(np.float32)
    return values[lower] * (1 - weight) + values[lower + 1] * weight
