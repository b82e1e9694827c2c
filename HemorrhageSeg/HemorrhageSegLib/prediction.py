"""How a model finds blood: one finder per kind of model, all with the same face.

    finder = finder_for(model, options)                   # refuses what cannot work before anything is computed
    found = finder(axial, brain, progress, clock)         # a Prediction on the axial grid

Networks see the head as their file says (``preprocessing.kind`` absent or "slices": square pictures of the brain's box;
"volume": windows of a resampled volume; "nnunet": as nnU-Net's plan says). Methods without weights are functions named
in :data:`CLASSICAL`. The pipeline does the rest alike for all: searched space, density rules, threshold, measures.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from HemorrhageSegLib import legacy
from HemorrhageSegLib.networks import NETWORKS
from HemorrhageSegLib.task import TASK, HemorrhageOptions
from HemorrhageSegLib.views import STAGE, SliceView, View, VolumeView
from NeuraxisLib.clock import Clock
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.models import ModelFile, find_model, load_model
from NeuraxisLib.nnunet_inference import KIND as NNUNET
from NeuraxisLib.nnunet_inference import load_nnunet
from NeuraxisLib.preprocessing import SlicePreprocessing
from NeuraxisLib.task import Progress
from NeuraxisLib.uncertainty_methods import METHODS, UncertaintyMethod, method_named
from NeuraxisLib.volume import Volume
from NeuraxisLib.volume_preprocessing import KIND as VOLUME
from NeuraxisLib.volume_preprocessing import VolumePreprocessing

if TYPE_CHECKING:
    from NeuraxisLib.inference import Predictor

#: Methods that need no weights: architecture name of the model file -> "module:function". The function is
#: ``function(axial, brain, arguments, progress)``: the CT in HU with axial slices, the intracranial space as bool
#: (k, j, i), ``architecture.arguments`` of the model file, and a Progress to report to and to be cancelled by (its
#: 0..1 is the function's own share); it returns the probability of blood, float32 (k, j, i) in 0..1, on that grid.
#: What lies outside the brain does not matter; it raises ModelError for arguments it does not take.
CLASSICAL = {
    "FuzzyCMeans": "HemorrhageSegLib.classical:fuzzy_c_means",
    "ActiveContour": "HemorrhageSegLib.classical:active_contour",
}
#: What the maps of these methods are.
MEANINGS = {"FuzzyCMeans": "membership in the cluster of blood", "ActiveContour": "distance from the contour, scaled"}


@dataclass
class Prediction:
    """What a finder found.

    Attributes:
        probability: (k, j, i) float32 in 0..1 on the axial grid, not yet limited to the searched space.
        facts: for provenance (device, precision, grid, seed).
        warnings: sentences for the reader.
        doubt: (k, j, i) the probability that the uncertainty is computed from; None if it is ``probability``.
        slices: (n, size, size) probability on the network's own slices, for the legacy counts; None if there are none.
        meaning: what the map is, in words, where it is no probability.
    """

    probability: np.ndarray
    facts: dict
    warnings: list[str] = field(default_factory=list)
    doubt: np.ndarray | None = None
    slices: np.ndarray | None = None
    meaning: str = ""


Finder = Callable[[Volume, np.ndarray, Progress, Clock], Prediction]


def chosen_method(model: ModelFile, options: HemorrhageOptions) -> UncertaintyMethod:
    """The uncertainty that the options ask for; "model" stands for the one in the model file, entropy if it is silent.

    Raises:
        ModelError: the model file names one that this version does not have.
    """
    if options.uncertainty != "model":
        return method_named(options.uncertainty)
    name = model.header["uncertainty"].get("kind", "entropy")
    if name not in METHODS or name == "ensemble":
        raise ModelError(
            f"The model '{model.name}' asks for the uncertainty '{name}', which this version cannot give; "
            "update the extension or choose another uncertainty."
        )
    return METHODS[name]


def finder_for(model: ModelFile, options: HemorrhageOptions) -> Finder:
    """The finder of a model, or of an ensemble of models.

    Raises:
        ModelError: a model file describes what this version cannot do, or does not fit the options.
        InputError: options that contradict each other.
    """
    method = chosen_method(model, options)
    if method.name == "ensemble":
        return EnsembleFinder([model, *_further_models(options)], options)
    if options.ensemble:
        raise InputError("Further models are named for an ensemble; choose the uncertainty 'ensemble' or name none.")
    return _single(model, options, method)


def _single(model: ModelFile, options: HemorrhageOptions, method: UncertaintyMethod) -> Finder:
    """The finder of one model."""
    kind = model.header["preprocessing"].get("kind", "slices")
    if model.header["architecture"]["name"] in CLASSICAL:
        _refuse_legacy(model, options, allowed="legacy_no_skull_strip")
        return ClassicalFinder(model, options, method)
    if kind == "slices":
        _refuse_legacy(model, options, refused="legacy_no_skull_strip")
        preprocessing = SlicePreprocessing.from_dict(model.header["preprocessing"])
        return NetworkFinder(model, options, method, lambda *head: SliceView.of(*head, preprocessing))
    if kind == VOLUME:
        _refuse_legacy(model, options)
        windows = VolumePreprocessing.from_dict(model.header["preprocessing"])
        return NetworkFinder(model, options, method, lambda *head: VolumeView.of(*head, windows))
    if kind == NNUNET:
        _refuse_legacy(model, options)
        return NnUNetFinder(model, options, method)
    raise ModelError(
        f"The model '{model.name}' needs preprocessing of the kind '{kind}', which this version does not have; "
        "update the extension."
    )


def _refuse_legacy(model: ModelFile, options: HemorrhageOptions, allowed: str = "", refused: str = "legacy_") -> None:
    """InputError if an option that imitates what was done to another kind of model is set."""
    for name, value in vars(options).items():
        if value and name.startswith(refused) and name != allowed:
            raise InputError(
                f"The option '{name}' is made for another kind of model than '{model.name}'; leave it out."
            )


class ClassicalFinder:
    """A method of :data:`CLASSICAL`."""

    def __init__(self, model: ModelFile, options: HemorrhageOptions, method: UncertaintyMethod):
        if method.name != "entropy":
            raise ModelError(
                f"The uncertainty '{method.name}' needs a network, and the model '{model.name}' is a method without "
                "weights; choose 'entropy'."
            )
        self._model, self._whole_picture = model, options.legacy_no_skull_strip

    def __call__(self, axial: Volume, brain: np.ndarray, progress: Progress, clock: Clock) -> Prediction:
        """Run the method on the CT itself."""
        self._model.check()
        architecture = self._model.header["architecture"]
        arguments, warnings = architecture["arguments"], []
        if self._whole_picture:
            arguments = {**arguments, "legacy_no_skull_strip": True}
            warnings.append("The whole picture was searched, as was asked for: bone is called blood.")
        module, function = CLASSICAL[architecture["name"]].split(":")
        with clock.stage("prediction"):
            found = getattr(import_module(module), function)(axial, brain, arguments, progress)
        facts = {"device": "cpu", "seed": None}
        return Prediction(found, facts, warnings, meaning=MEANINGS[architecture["name"]])


class NnUNetFinder:
    """A trained nnU-Net, which does its own preprocessing on the whole scan."""

    def __init__(self, model: ModelFile, options: HemorrhageOptions, method: UncertaintyMethod):
        if method.name != "entropy":
            raise ModelError(
                f"The uncertainty '{method.name}' cannot be had of an nnU-Net such as '{model.name}'; choose 'entropy'."
            )
        self._model, self._options = model, options

    def __call__(self, axial: Volume, brain: np.ndarray, progress: Progress, clock: Clock) -> Prediction:
        """Run nnU-Net's own code."""
        progress(0.0, "Loading the network")
        with clock.stage("network"):
            network = load_nnunet(self._model, self._options.device)
        with clock.stage("prediction"):
            probability = network.probability(axial, progress.part(0.1, 1.0))
        return Prediction(probability, network.facts)


class NetworkFinder:
    """A network that sees the head in one of the :mod:`HemorrhageSegLib.views`."""

    def __init__(
        self,
        model: ModelFile,
        options: HemorrhageOptions,
        method: UncertaintyMethod,
        view: Callable[[Volume, np.ndarray], View],
    ):
        self._model, self._options, self._method, self._view = model, options, method, view
        architecture = model.header["architecture"]["name"]
        if method.paths and architecture != "SLEXNet":
            raise ModelError(
                f"The uncertainty '{method.name}' needs the three paths of a SLEX-Net, and the model '{model.name}' "
                f"is a {architecture}; choose another uncertainty."
            )
        if options.legacy_batch_statistics and (method.sampled or method.paths):
            raise InputError(
                f"Option 'legacy_batch_statistics' cannot be combined with the uncertainty '{method.name}'; "
                "leave out one of them."
            )

    def __call__(self, axial: Volume, brain: np.ndarray, progress: Progress, clock: Clock) -> Prediction:
        """Resample, run the network where the brain is, and come back."""
        progress(0.0, "Preparing the image")
        with clock.stage("slices"):
            view = self._view(axial, brain)
        progress(0.05, "Loading the network")
        with clock.stage("network"):
            predictor = self._predictor(view)
        with clock.stage("prediction"):
            sampled = self._method.sampled
            found, used = (self._mean if sampled else self._once)(view, predictor, progress.part(0.1, 1.0))
        on_grid = found[0]
        with clock.stage("way back"):
            probability = view.backward(_legacy_values(on_grid, self._options))
            doubt = view.backward(found[1]) if self._method.paths else None
        warnings = list(dict.fromkeys(warning for each in used for warning in each.warnings))
        slices = on_grid if isinstance(view, SliceView) else None
        return Prediction(probability, self._facts(view, used[-1]), warnings, doubt, slices)

    def _predictor(self, view: View) -> Predictor:
        from NeuraxisLib.inference import predictor_for  # torch is loaded after all that can be refused without it

        options = self._options
        kind = self._kind(view)
        predictor = predictor_for(
            self._model, NETWORKS, options.device, options.precision, options.legacy_batch_statistics, kind
        )
        if view.count:
            self._check_fit(view.images(np.array([0])).shape)
        return predictor

    def _check_fit(self, shape: tuple[int, ...]) -> None:
        """ModelError if the network takes other images than the (1, channels, ...) that the preprocessing makes."""
        architecture = self._model.header["architecture"]
        module, attribute = NETWORKS[architecture["name"]].split(":")
        parameters = inspect.signature(getattr(import_module(module), attribute)).parameters
        taken = {name: parameter.default for name, parameter in parameters.items()} | architecture["arguments"]
        for name, what, made in (("in_channels", "channels", shape[1]), ("img_size", "windows of", list(shape[2:]))):
            wanted = list(taken[name]) if isinstance(taken.get(name), (list, tuple)) else taken.get(name, made)
            if wanted != made:
                raise ModelError(
                    f"The network of the model '{self._model.name}' takes {what} {wanted}, but its preprocessing makes "
                    f"{made}; install it again."
                )

    def _kind(self, view: View) -> type[Predictor]:
        if isinstance(view, VolumeView):
            from NeuraxisLib.window_inference import WindowPredictor

            return WindowPredictor
        architecture = self._model.header["architecture"]["name"]
        if architecture == "SLEXNet" and not (self._method.sampled or self._options.legacy_batch_statistics):
            from HemorrhageSegLib.networks.slex_inference import SlexPredictor

            return SlexPredictor
        if architecture == "DRUNet" and not self._options.legacy_batch_statistics:
            from HemorrhageSegLib.networks.drunet_inference import DRUNetPredictor

            return DRUNetPredictor
        from NeuraxisLib.inference import SlicePredictor

        return SlicePredictor

    def _once(self, view: View, predictor: Predictor, progress: Progress) -> tuple[np.ndarray, list[Predictor]]:
        flip = bool(self._model.header.get("flip_averaging", False))
        return view.predict(predictor, flip, progress), [predictor]

    def _mean(self, view: View, predictor: Predictor, progress: Progress) -> tuple[np.ndarray, list[Predictor]]:
        """The mean of several passes, and the predictors that made them."""
        from NeuraxisLib.sampled_inference import Sampler

        options, method = self._options, self._method.name
        flip = method != "tta" and bool(self._model.header.get("flip_averaging", False))
        passes = options.uncertainty_passes
        sampler = Sampler(method, self._kind(view), options.device, options.precision, passes, options.seed)
        total, used = 0.0, []
        predictors = sampler.predictors(predictor.network, self._model.name, view.images, view.count)
        for number, each in enumerate(predictors):
            part = progress.part(number / passes, (number + 1) / passes)
            total = total + view.predict(each, flip, part, f"{STAGE}, pass {number + 1} of {passes}")
            used = [each] if not used or not used[0].warnings else [used[0], each]
        return total / passes, used

    def _facts(self, view: View, predictor: Predictor) -> dict:
        import torch

        sampled = {"passes": self._options.uncertainty_passes} if self._method.sampled else {}
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": predictor.device,
            "precision": predictor.precision,
            "grid": view.facts,
            "seed": self._options.seed if self._method.sampled else None,  # nothing else is random
            **sampled,
        }


class EnsembleFinder:
    """Several models of the task, of any kind; the mean of their probabilities is the answer."""

    def __init__(self, models: list[ModelFile], options: HemorrhageOptions):
        if len({model.sha256 for model in models}) < 2:
            raise ModelError(
                "An ensemble needs at least two different models; name further ones with the option 'ensemble'."
            )
        self._models = list({model.sha256: model for model in models}.values())
        self._members = [_single(model, options, METHODS["entropy"]) for model in self._models]

    def __call__(self, axial: Volume, brain: np.ndarray, progress: Progress, clock: Clock) -> Prediction:
        """Run each member and average on the axial grid."""
        total, found = np.zeros(brain.shape, np.float32), []
        for number, member in enumerate(self._members):
            part = progress.part(number / len(self._members), (number + 1) / len(self._members))
            found.append(member(axial, brain, part, clock))
            total += found[-1].probability
            found[-1].probability = found[-1].slices = None  # each is as large as the scan
        members = [
            {"name": model.name, "sha256": model.sha256, **each.facts} for model, each in zip(self._models, found)
        ]
        warnings = list(dict.fromkeys(warning for each in found for warning in each.warnings))
        return Prediction(total / len(self._members), {**found[0].facts, "members": members}, warnings)


def _further_models(options: HemorrhageOptions) -> list[ModelFile]:
    """The models that the option ``ensemble`` names; ModelError if one is missing or serves another task."""
    names = [name.strip() for name in options.ensemble.split(",") if name.strip()]
    return [load_model(find_model(TASK, name), TASK.name) for name in names]


def _legacy_values(on_grid: np.ndarray, options: HemorrhageOptions) -> np.ndarray:
    """Probabilities of slices as the released code of DR-UNet would have kept them, if that is asked for."""
    if options.legacy_stretched_sheet:
        on_grid = legacy.stretch(on_grid)
    if options.legacy_mask_threshold:
        on_grid = legacy.floor_to_8_bit(on_grid).astype(np.float32) / 255
    return on_grid
