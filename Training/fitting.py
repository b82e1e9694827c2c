"""The training loop: deterministic batches, an average of the weights, exact resume, best-by-validation."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from HemorrhageSegLib.density import DENSEST_BLOOD_HU
from HemorrhageSegLib.networks import NETWORKS
from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from Training.losses import loss_of, slice_score
from Training.recipe import Recipe
from Training.sampling import Batch, HeadSampler
from Training.simulation.bank import BLEEDING, UNKNOWN, BankedHead

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
#: Steps in a row without a finite loss after which going on makes no sense.
MOST_SKIPPED = 100
#: What may differ between a run and the recipe that resumes it: how long it goes on, and what it is called.
MAY_CHANGE = ("fitting.steps", "fitting.validate_every", "fitting.keep_minutes")


class Fitting:
    """One training run in one folder; start it again after a kill and it goes on where it was.

    On the CPU a resumed run ends with the weights, bit for bit, of one that was never stopped.

    Args:
        recipe: what to fit and how.
        run: folder of the run (checkpoint, log, best weights).
        sampler: source of batches.
        validation: heads never trained on; without any, the last weights count as the best.
        device: torch device name.
        start_from: weights to start from instead of random ones (fine-tuning).

    Raises:
        InputError: the recipe's network cannot be built, ``start_from`` does not fit it, or the folder holds a run
            of another recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        sampler: HeadSampler,
        validation: list[BankedHead],
        device: str = "cpu",
        start_from: dict[str, Tensor] | None = None,
    ):
        self.recipe, self.run, self.sampler, self.validation = recipe, Path(run), sampler, validation
        self.options = recipe["fitting"]
        torch.manual_seed(self.options["seed"])
        self.device = torch.device(device)
        layout = torch.channels_last if self.device.type == "cpu" else torch.contiguous_format
        self.network = build(recipe).to(self.device, memory_format=layout)
        if start_from is not None:
            _load(self.network, start_from)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=self.options["learning_rate"], weight_decay=self.options["weight_decay"]
        )
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        self._skipped = 0
        self._resume()

    def fit(self, progress: Progress, log: Callable[[dict], None]) -> dict[str, Tensor]:
        """Run to the last step; returns the best averaged weights.

        Ctrl-C or SIGTERM is heeded after the step that is under way: the run is saved and KeyboardInterrupt raised.

        Args:
            progress: told after every step.
            log: takes records such as ``{"step": 10, "loss": 0.5}``.
        """
        total, saved, started = self.options["steps"], time.monotonic(), time.monotonic() - self.seconds
        with ThreadPoolExecutor(1) as pool, stop_between_steps() as stopped:
            upcoming = pool.submit(self._batch, self.step)
            while self.step < total:
                batch = upcoming.result()
                if self.step + 1 < total:
                    upcoming = pool.submit(self._batch, self.step + 1)
                loss = self._advance(batch)
                self.seconds = time.monotonic() - started
                progress(self.step / total, f"step {self.step} of {total}, loss {loss:.3f}")
                if self.step % 10 == 0:
                    log({"step": self.step, "loss": loss, "seconds": round(self.seconds, 1)})
                if self.step % self.options["validate_every"] == 0 or self.step == total:
                    self._validate(log)
                elif not stopped() and time.monotonic() - saved <= 60 * self.options["keep_minutes"]:
                    continue
                self._save()
                saved = time.monotonic()
                if stopped():
                    raise KeyboardInterrupt
        return _read(self.run / BEST, self.device)

    def _batch(self, step: int) -> Batch:
        return self.sampler.batch(self.options["seed"], step, self.options["batch"])

    def _advance(self, batch: Batch) -> float:
        """One optimiser step; returns the loss. A step whose loss or gradient is not finite changes nothing."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.options["learning_rate"] * self._rate(self.step)
        self.network.train()
        before = [buffer.clone() for buffer in self.network.buffers()]
        loss = self._loss(batch)
        self.step += 1
        if not (torch.isfinite(loss) and self._descend(loss)):
            for buffer, old in zip(self.network.buffers(), before):
                buffer.copy_(old)  # the BatchNorms have already seen the images
            self._skipped += 1
            if self._skipped >= MOST_SKIPPED:
                raise InputError(f"The loss was no finite number for {MOST_SKIPPED} steps; lower the learning rate.")
            return math.nan
        self._skipped = 0
        keep = min(self.options["ema"], self.step / (self.step + 10))
        for name, value in self.network.state_dict().items():
            own = self.average[name]
            if own.is_floating_point():
                own.lerp_(value, 1 - keep)
            else:
                own.copy_(value)
        return float(loss.detach())

    def _loss(self, batch: Batch) -> Tensor:
        images = batch.images.to(self.device)
        if self.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        with self._precision():
            logits = self.network(images)
        moved = Batch(images, *(part.to(self.device) for part in (batch.truth, batch.brain, batch.slice_label)))
        return loss_of(logits.float(), moved, self.options)

    def _descend(self, loss: Tensor) -> bool:
        """Move the weights along the (clipped) gradient; False, and nothing moved, if it is not finite."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.options["clip"] or math.inf)
        if not torch.isfinite(norm):
            return False
        self.optimiser.step()
        return True

    def _rate(self, step: int) -> float:
        """Share of the learning rate: warm-up, then constant or a half cosine to 2 %."""
        warmup, total = self.options["warmup"], self.options["steps"]
        if step < warmup:
            return (step + 1) / warmup
        if self.options["schedule"] == "constant":
            return 1.0
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    def _precision(self):
        if self.options["precision"] == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _validate(self, log: Callable[[dict], None]) -> None:
        """Score the averaged weights on the validation heads and keep them if they are the best so far."""
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        scores = evaluate(self.network, self.validation, self.recipe, self.device)
        self.network.load_state_dict(trained)
        log({"step": self.step, **scores})
        if scores["score"] >= self.best:
            self.best = scores["score"]
            with atomic_write(self.run / BEST) as temporary:
                torch.save(self.average, temporary)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "best": self.best,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "recipe": json.dumps(self.recipe.data),
        }
        with atomic_write(self.run / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        path = self.run / CHECKPOINT
        if not path.exists():
            return
        state = _read(path, self.device)
        changed = difference(Recipe(json.loads(state["recipe"])), self.recipe)
        if changed:
            raise InputError(
                f"The run folder '{self.run.name}' holds a run with another '{changed}'; "
                "give the same recipe or choose another folder."
            )
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C and SIGTERM and give a function that says whether one came; the second one acts at once.

    A step must not be cut in two: weights, optimiser and average would no longer belong together. Outside the main
    thread Python cannot change signals, and nothing is held back.
    """
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def difference(one: Recipe, other: Recipe) -> str | None:
    """The first key in which two recipes would train differently, or None."""
    for section in ("task", "architecture", "preprocessing", "fitting"):
        first, second = one.data.get(section), other.data.get(section)
        if not isinstance(first, dict) or not isinstance(second, dict):
            if first != second:
                return section
            continue
        for key in sorted({*first, *second}):
            if first.get(key) != second.get(key) and f"{section}.{key}" not in MAY_CHANGE:
                return f"{section}.{key}"
    return None


def build(recipe: Recipe) -> nn.Module:
    """The recipe's network with fresh weights; InputError if there is none of that name or it cannot be built."""
    name, arguments = recipe["architecture"]["name"], recipe["architecture"]["arguments"]
    if name not in NETWORKS:
        raise InputError(f"There is no network '{name}'; choose one of: {', '.join(NETWORKS)}.")
    module, attribute = NETWORKS[name].split(":")
    try:
        return getattr(import_module(module), attribute)(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"The recipe's network '{name}' cannot be built ({error}); correct its arguments.") from None


def _load(network: nn.Module, weights: dict[str, Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise InputError(
            "The weights to start from do not fit the recipe's network; choose a model of the same architecture."
        ) from None


def _read(path: Path, device: torch.device) -> dict:
    """A file that torch saved, read without unpickling anything but tensors and plain values."""
    try:
        return torch.load(path, weights_only=True, map_location=device)
    except Exception:  # whatever a damaged archive makes torch raise
        raise InputError(f"'{path.name}' of the run is missing or damaged; choose another run folder.") from None


@torch.inference_mode()
def evaluate(network: nn.Module, heads: list[BankedHead], recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Scores of a network on banked heads: ``dice``, ``auc`` and their mean, ``score``.

    Dice is pooled over every second slice of the simulated heads, AUC is that of the slice score over the labelled
    slices of the real ones; where there are no real heads, ``auc`` is NaN and ``score`` is the Dice.
    """
    network.eval()
    overlap = predicted = true = 0.0
    scores, labels = [], []
    for head in heads:
        used = np.flatnonzero(head.brain.any(axis=(1, 2)))[:: 2 if head.source != "real" else 1]
        for k in used:
            logits, truth, brain = predict_slice(network, head, int(k), recipe, device)
            if head.source == "real":
                if head.slice_label[k] != UNKNOWN:
                    scores.append(float(slice_score(logits, brain)))
                    labels.append(head.slice_label[k] == BLEEDING)
                continue
            found = (logits > 0) & (brain > 0.5)
            overlap += float((found & truth).sum())
            predicted += float(found.sum())
            true += float((truth & (brain > 0.5)).sum())
    dice = 2 * overlap / max(predicted + true, 1)
    auc = _auc(np.array(scores), np.array(labels)) if scores else float("nan")
    return {"dice": round(dice, 4), "auc": round(auc, 4), "score": dice if np.isnan(auc) else (dice + auc) / 2}


def predict_slice(
    network: nn.Module, head: BankedHead, k: int, recipe: Recipe, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """(logits, truth, brain) of one slice, each (1, 1, size, size)."""
    around = np.clip([k - 1, k, k + 1], 0, len(head.slabs_hu) - 1)
    size = recipe.preprocessing.size
    stack = np.concatenate([head.slabs_hu[around], head.truth[k][None] > 0, head.brain[k][None]]).astype(np.float32)
    resized = nn.functional.interpolate(torch.from_numpy(stack)[None], size=size, mode="bilinear", antialias=True)[0]
    image = recipe.preprocessing.images(resized[:3].numpy(), np.array([1]))
    logits = network(torch.from_numpy(image).to(device)).float().cpu()
    searched = (resized[None, 4:5] > 0.5) & (resized[None, 1:2] < DENSEST_BLOOD_HU)
    return logits, resized[None, 3:4] > 0.5, searched.float()


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney), ties counted half."""
    if labels.all() or not labels.any():
        return float("nan")
    positive, negative = scores[labels][:, None], scores[~labels][None]
    return float((positive > negative).mean() + 0.5 * (positive == negative).mean())
