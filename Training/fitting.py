"""The training loop: deterministic batches, an average of the weights, exact resume, best-by-validation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import nn

from HemorrhageSegLib.networks import NETWORKS
from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from Training.losses import bleeding_loss, slice_score
from Training.recipe import Recipe
from Training.sampling import HeadSampler
from Training.simulation.bank import BLEEDING, UNKNOWN, BankedHead

CHECKPOINT = "checkpoint.pt"


class Fitting:
    """One training run in one folder; start it again after a kill and it goes on where it was.

    Args:
        recipe: what to fit and how.
        run: folder of the run (checkpoint, log, best weights).
        sampler: source of batches.
        validation: heads never trained on.
        device: torch device name.
        start_from: weights to start from instead of random ones (fine-tuning).
    """

    def __init__(self, recipe: Recipe, run: Path, sampler: HeadSampler, validation: list[BankedHead], device: str = "cpu",
                 start_from: dict | None = None):
        self.recipe, self.run, self.sampler, self.validation = recipe, Path(run), sampler, validation
        self.options = recipe["fitting"]
        torch.manual_seed(self.options["seed"])
        self.device = torch.device(device)
        layout = torch.channels_last if self.device.type == "cpu" else torch.contiguous_format
        self.network = build(recipe).to(self.device, memory_format=layout)
        if start_from is not None:
            self.network.load_state_dict(start_from)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=self.options["learning_rate"], weight_decay=self.options["weight_decay"]
        )
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        self._resume()

    def fit(self, progress: Progress, log: Callable[[dict], None]) -> dict[str, torch.Tensor]:
        """Run to the last step; returns the best averaged weights."""
        total, saved, started = self.options["steps"], time.monotonic(), time.monotonic() - self.seconds
        with ThreadPoolExecutor(1) as pool:
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
                    self._save()
                    saved = time.monotonic()
                elif time.monotonic() - saved > 60 * self.options["keep_minutes"]:
                    self._save()
                    saved = time.monotonic()
        return torch.load(self.run / "best.pt", weights_only=True)

    def _batch(self, step: int):
        return self.sampler.batch(self.options["seed"], step, self.options["batch"])

    def _advance(self, batch) -> float:
        """One optimiser step; returns the loss. A step whose loss is not finite is skipped."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.options["learning_rate"] * self._rate(self.step)
        self.network.train()
        images = batch.images.to(self.device)
        if self.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        with self._precision():
            logits = self.network(images)
        moved = type(batch)(images, *(t.to(self.device) for t in (batch.truth, batch.brain, batch.slice_label)))
        loss = bleeding_loss(logits.float(), moved, self.options["outside_weight"], self.options["slice_weight"])
        self.step += 1
        if not torch.isfinite(loss):
            return float("nan")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 3.0)
        self.optimiser.step()
        keep = min(self.options["ema"], self.step / (self.step + 10))
        for name, value in self.network.state_dict().items():
            own = self.average[name]
            own.lerp_(value, 1 - keep) if own.is_floating_point() else own.copy_(value)
        return float(loss.detach())

    def _rate(self, step: int) -> float:
        """Warm-up, then a half cosine to 2 %."""
        warmup, total = self.options["warmup"], self.options["steps"]
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    def _precision(self):
        if self.options["precision"] == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _validate(self, log: Callable[[dict], None]) -> None:
        """Dice over all simulated validation slices, AUC over real slices; keeps the best by their mean."""
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        scores = evaluate(self.network, self.validation, self.recipe, self.device)
        self.network.load_state_dict(trained)
        log({"step": self.step, **scores})
        if scores["score"] > self.best:
            self.best = scores["score"]
            with atomic_write(self.run / "best.pt") as temporary:
                torch.save(self.average, temporary)

    def _save(self) -> None:
        state = {"step": self.step, "best": self.best, "seconds": self.seconds, "network": self.network.state_dict(),
                 "average": self.average, "optimiser": self.optimiser.state_dict(), "recipe": json.dumps(self.recipe.data)}
        with atomic_write(self.run / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        path = self.run / CHECKPOINT
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]


def build(recipe: Recipe) -> nn.Module:
    """The recipe's network with fresh weights."""
    name, arguments = recipe["architecture"]["name"], recipe["architecture"]["arguments"]
    if name not in NETWORKS:
        raise InputError(f"There is no network '{name}'; choose one of: {', '.join(NETWORKS)}.")
    module, attribute = NETWORKS[name].split(":")
    return getattr(import_module(module), attribute)(**arguments)


@torch.inference_mode()
def evaluate(network: nn.Module, heads: list[BankedHead], recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Pooled Dice on simulated heads, false positive pixels per clean slice, AUC of the slice score on real heads."""
    network.eval()
    overlap = predicted = true = 0.0
    scores, labels = [], []
    for head in heads:
        used = np.flatnonzero(head.brain.any(axis=(1, 2)))[:: 2 if head.source != "real" else 1]
        for k in used:
            logits, truth, brain = _predict_slice(network, head, int(k), recipe, device)
            if head.source == "real":
                if head.slice_label[k] != UNKNOWN:
                    scores.append(float(slice_score(logits, brain)))
                    labels.append(head.slice_label[k] == BLEEDING)
                continue
            found = (logits > 0) & (brain > 0.5)
            overlap += float((found & truth).sum())
            predicted += float(found.sum())
            true += float(truth.sum())
    dice = 2 * overlap / max(predicted + true, 1)
    auc = _auc(np.array(scores), np.array(labels)) if scores else float("nan")
    return {"dice": round(dice, 4), "auc": round(auc, 4), "score": dice if np.isnan(auc) else (dice + auc) / 2}


def _predict_slice(network: nn.Module, head: BankedHead, k: int, recipe: Recipe, device: torch.device):
    around = np.clip([k - 1, k, k + 1], 0, len(head.slabs_hu) - 1)
    size = recipe.preprocessing.size
    stack = np.concatenate([head.slabs_hu[around], head.truth[k][None] > 0, head.brain[k][None]]).astype(np.float32)
    resized = nn.functional.interpolate(torch.from_numpy(stack)[None], size=size, mode="bilinear", antialias=True)[0]
    image = recipe.preprocessing.images(resized[:3].numpy(), np.array([1]))
    logits = network(torch.from_numpy(image).to(device)).float().cpu()
    return logits, resized[None, 3:4] > 0.5, (resized[None, 4:5] > 0.5).float()


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney), ties counted half."""
    if labels.all() or not labels.any():
        return float("nan")
    positive, negative = scores[labels][:, None], scores[~labels][None]
    return float((positive > negative).mean() + 0.5 * (positive == negative).mean())
