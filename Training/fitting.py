"""The training loop: deterministic batches, an average of the weights, exact resume, best-by-validation.

A step depends on the weights, the optimiser and its number alone: batches, augmentation and dropout draw from (seed,
step). So a run that was killed ends, on the CPU bit for bit, like one that was not, and several processes
(:mod:`Training.distributed`) share one batch between them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from NeuraxisLib.atomic import remove_unfinished
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from Training import losses
from Training.augmentation import PRESETS, Augmentation, augmentation_of
from Training.batching import leaves_of, like, made_ahead, parts_of
from Training.checkpointing import (
    BEST,
    CHECKPOINT,
    LAST,
    freeze,
    load_parts,
    read,
    read_checkpoint,
    save,
    stop_between_steps,
)
from Training.distributed import anywhere, average_gradients, gathered, is_first, make_equal, rank, shard, world_size
from Training.families import found, network_class
from Training.guards import check_batch
from Training.losses import Output, loss_of
from Training.optimisers import Schedule, optimiser_of
from Training.recipe import Recipe
from Training.regimes import Regime
from Training.sampling import Batch
from Training.sync_batchnorm import synchronise
from Training.validation import evaluate

#: Steps in a row without a finite loss after which going on makes no sense.
MOST_SKIPPED = 100
#: Steps between two records of the loss.
LOG_EVERY = 10

Log = Callable[[dict], None]


class Sampler(Protocol):
    """Where batches come from; the same (seed, step) gives the same batch."""

    def batch(self, seed: int, step: int, size: int, wanted: slice = slice(None)) -> Batch:
        """The batch of one step, or the samples of it that are ``wanted``."""


class Fitting:
    """One training run in one folder; start it again after a kill and it goes on where it was.

    Args:
        recipe: what to fit and how.
        run: folder of the run (checkpoint, log, best weights).
        sampler: source of batches.
        validation: cases never trained on; without any, the last weights count as the best.
        device: torch device name.
        start_from: weights to start from instead of random ones: beginning of parameter names -> weights; ``""`` is
            the whole network.
        readers: threads that make batches ahead; their number changes nothing but the speed.

    Raises:
        InputError: the recipe's network, optimiser or schedule cannot be built, ``start_from`` does not fit, or the
            folder holds a run of another recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        sampler: Sampler,
        validation: Sequence[Any],
        device: str = "cpu",
        start_from: Mapping[str, Mapping[str, Tensor]] | None = None,
        readers: int = 1,
    ):
        self.recipe, self.run, self.sampler, self.validation = recipe, Path(run), sampler, validation
        self.options, self.readers, self._augmentation = recipe["fitting"], readers, _augmentation(recipe)
        torch.manual_seed(self.options["seed"])
        self.device = torch.device(device)
        self.network = build(recipe)
        load_parts(self.network, start_from or {})
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        self.network = synchronise(self.network.to(self.device, memory_format=layout))
        make_equal(self.network)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.regime: Regime = found(recipe.family.regime)(recipe) if recipe.family.regime else Regime(recipe)
        self._losses = found(recipe.family.losses)
        self._enter(0, 0)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.options["precision"] == "fp16")
        if self._scaler.is_enabled() and self.device.type != "cuda":
            raise InputError("The recipe's 'fitting.precision' fp16 needs a CUDA device; set it to bf16 or fp32.")
        self.step, self.best, self.seconds, self.stale = 0, -math.inf, 0.0, 0
        self._skipped, self._waited_s = 0, 0.0
        if is_first():
            remove_unfinished(self.run)  # each kill while a checkpoint is written may leave one
        self._resume()

    def fit(
        self, progress: Progress, log: Log, watch: Callable[[nn.Module], dict[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Run to the last step, or until nothing gets better; returns the best averaged weights.

        Ctrl-C or SIGTERM is heeded after the step that is under way: the run is saved and KeyboardInterrupt raised.

        Args:
            progress: told after every step.
            log: takes records such as ``{"step": 10, "loss": 0.5}``.
            watch: looks at the averaged weights after each validation and returns more for its record (pictures).
        """
        total = self.options["steps"] * len(self.regime.stages)
        saved, started = time.monotonic(), time.monotonic() - self.seconds
        with stop_between_steps() as stopped, made_ahead(self._batch, self.step, total, self.readers) as batches:
            while not self._done():
                batch = self._next(batches)
                loss = self._advance(batch, log)
                self.seconds = time.monotonic() - started
                progress(self.step / total, f"step {self.step} of {total}, loss {loss:.3f}")
                if self.step % LOG_EVERY == 0:
                    seconds = {"seconds": round(self.seconds, 1), "waited_s": round(self._waited_s, 1)}
                    rate = self.optimiser.param_groups[0]["lr"]
                    log({"step": self.step, "loss": loss, "learning_rate": rate, **seconds})
                stop = anywhere(stopped())
                if self.step % self.options["validate_every"] == 0 or self._spent():
                    self._validate(log, watch)
                    if self._stage_over() and not self._done():
                        self._next_stage(log)
                elif not stop and not anywhere(time.monotonic() - saved > 60 * self.options["keep_minutes"]):
                    continue
                self._save()
                saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt
        anywhere(False)  # the first process has written the best weights when the others read them
        return read(self.run / BEST, self.device)

    def _spent(self) -> bool:
        """Whether the stage has had all its steps."""
        return self.step >= self._began + self.options["steps"]

    def _stage_over(self) -> bool:
        """Whether that is so, or as many validations in a row as the recipe allows brought nothing better."""
        return self._spent() or 0 < self.options["early_stop"] <= self.stale

    def _done(self) -> bool:
        return self._stage_over() and self.stage == len(self.regime.stages) - 1

    def _enter(self, stage: int, began: int) -> None:
        """Freeze what a stage freezes, and start its optimiser and schedule."""
        self.stage, self._began = stage, began
        kept = self.regime.enter(self.regime.stages[stage], self.network)
        self._frozen = [*kept, *freeze(self.network, self.options["frozen"])]
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = optimiser_of(trained, self.options)
        self.schedule = Schedule(self.options, self.options["steps"])

    def _next_stage(self, log: Log) -> None:
        """Go on from the best weights so far in the next stage."""
        anywhere(False)  # the first process has written them when the others read
        best = read(self.run / BEST, self.device)
        self.network.load_state_dict(best)
        self.average = {name: value.clone() for name, value in best.items()}
        self._enter(self.stage + 1, self.step)
        self.stale = 0
        log({"step": self.step, "stage": self.regime.stages[self.stage]})

    def _next(self, batches: Iterator[Batch]) -> Batch:
        began = time.monotonic()
        batch = next(batches)
        self._waited_s += time.monotonic() - began
        return batch

    def _batch(self, step: int) -> Batch:
        mine = shard(self.options["batch"])
        return self.sampler.batch(self.options["seed"], step, self.options["batch"], slice(mine.start, mine.stop))

    # -- one step ----------------------------------------------------------------------------------------------

    def _advance(self, batch: Batch, log: Log = lambda record: None) -> float:
        """One optimiser step; returns the loss. A step whose loss or gradient is not finite changes nothing."""
        check_batch(batch)
        for group in self.optimiser.param_groups:
            group["lr"] = self.options["learning_rate"] * self._rate(self.step - self._began)
        self.network.train()
        for module in self._frozen:
            module.eval()
        before = [buffer.clone() for buffer in self.network.buffers()]
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._gradient(self._on_device(batch))
        self.step += 1
        if not (torch.isfinite(loss) and self._descend()):
            for buffer, old in zip(self.network.buffers(), before):
                buffer.copy_(old)  # the BatchNorms have already seen the images
            self._skip(batch, log)
            return math.nan
        self.regime.limit(self.network)
        self._skipped = 0
        self._average()
        return float(loss)

    def _skip(self, batch: Batch, log: Log) -> None:
        """Note whose step was left out; InputError when it happened too often in a row."""
        self._skipped += 1
        cases = [name for names in gathered(batch.cases) for name in names]
        log({"step": self.step, "skipped": cases})
        if self._skipped >= MOST_SKIPPED:
            raise InputError(
                f"The loss was no finite number for {MOST_SKIPPED} steps, at last with {', '.join(cases) or '?'}; "
                "look at these cases or lower the learning rate."
            )

    def _gradient(self, batch: Batch) -> Tensor:
        """Fill in the gradients; returns the loss of the whole batch over all processes, detached.

        With ``accumulate`` parts the loss is still that of the whole batch, not the mean of those of its parts (a Dice
        over the batch would differ): the outputs of all parts come first, then the loss and its gradient at the
        outputs, then each part again with its share of that gradient.
        """
        each = len(batch.images) // len(shard(self.options["batch"]))  # patches of one volume
        least = self.options["batch"] // world_size() * each  # every process must go through as many parts
        parts = parts_of(len(batch.images), min(self.options["accumulate"], least))
        if len(parts) == 1:
            loss = self._loss(self._forward(batch.images, 0), batch)
            if torch.isfinite(loss):
                self._scaler.scale(loss).backward()
                average_gradients(self.network)
            return loss.detach()
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        with torch.no_grad():
            outputs = [self._forward(batch.images[part], number) for number, part in enumerate(parts)]
        for buffer, old in zip(self.network.buffers(), buffers):
            buffer.copy_(old)
        whole = [torch.cat(pieces).requires_grad_() for pieces in zip(*map(leaves_of, outputs))]
        loss = self._loss(like(outputs[0], whole), batch)
        if not torch.isfinite(loss):
            return loss.detach()
        self._scaler.scale(loss).backward()
        for number, part in enumerate(parts):
            outputs = leaves_of(self._forward(batch.images[part], number))
            used = [(o, w.grad[part]) for o, w in zip(outputs, whole) if w.grad is not None]
            torch.autograd.backward([o for o, _ in used], [g for _, g in used])
        average_gradients(self.network)
        return loss.detach()

    def _forward(self, images: Tensor, number: int) -> Output:
        """What the network says (the paths of SLEX-Net where the loss needs them) in fp32; dropout by (step, part)."""
        torch.manual_seed(self._seed(number))
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._precision():
            output = self.network.paths(images) if self._of_paths else self.network(images)
        return like(output, [part.float() for part in leaves_of(output)])

    def _loss(self, output: Output, batch: Batch) -> Tensor:
        loss, penalty = loss_of(output, batch, self.options, self._losses), self.regime.penalty(self.network)
        return loss if penalty is None else loss + penalty

    def _seed(self, *words: int) -> int:
        """A seed for this step and process."""
        return int(np.random.SeedSequence([self.options["seed"], self.step, rank(), *words]).generate_state(1)[0])

    def _on_device(self, batch: Batch) -> Batch:
        moved = batch.mapped(lambda part: part.to(self.device, non_blocking=True))
        if self._augmentation is None:
            return moved
        mine = shard(self.options["batch"])
        each = len(moved.images) // len(mine)  # patches of one volume
        samples = range(mine.start * each, mine.stop * each)
        return self._augmentation(moved, self.options["seed"], self.step, samples)

    def _descend(self) -> bool:
        """Move the weights along the (clipped) gradient; False, and nothing moved, if it is not finite."""
        self._scaler.unscale_(self.optimiser)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, self.options["clip"] or math.inf)
        finite = bool(torch.isfinite(norm))
        if finite:
            if self.options["clip_value"]:
                nn.utils.clip_grad_value_(trained, self.options["clip_value"])
            self._scaler.step(self.optimiser)
        self._scaler.update()
        return finite

    def _average(self) -> None:
        """Move the average of the weights towards them; a young average forgets faster."""
        keep = min(self.options["ema"], self.step / (self.step + 10))
        for name, value in self.network.state_dict().items():
            own = self.average[name]
            if own.is_floating_point():
                own.lerp_(value, 1 - keep)
            else:
                own.copy_(value)

    def _rate(self, step: int) -> float:
        """Share of the learning rate at a step."""
        return self.schedule.rate(step)

    @property
    def _of_paths(self) -> bool:
        return losses.named(self.options["loss"], self._losses).of_paths and hasattr(self.network, "paths")

    @property
    def _channels_last(self) -> bool:
        return self.device.type == "cpu" and self.recipe.family.dimensions == 2

    def _precision(self) -> Any:
        """Mixed precision; not for three-dimensional convolutions on the CPU, whose bf16 gradients are wrong."""
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.options["precision"])
        if kind is None or (self.device.type == "cpu" and self.recipe.family.dimensions == 3):
            return nullcontext()
        return torch.autocast(self.device.type, kind)

    # -- between steps -----------------------------------------------------------------------------------------

    def _validate(self, log: Log, watch: Callable[[nn.Module], dict[str, Any]] | None = None) -> None:
        """Score the averaged weights on the validation cases and keep them if they are the best so far."""
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        scores = evaluate(self.network, self.validation, self.recipe, self.device)
        seen = watch(self.network) if watch is not None and is_first() else {}
        self.network.load_state_dict(trained)
        log({"step": self.step, **scores, **seen})
        score = float(scores["score"])  # a plain number: checkpoints hold no others
        self.schedule.note(score)
        self.stale = 0 if score > self.best else self.stale + 1
        if is_first():
            save(self.run / LAST, self.average)
        if score >= self.best:
            self.best = score
            if is_first():
                save(self.run / BEST, self.average)

    def _save(self) -> None:
        """Write the checkpoint (the first process; the others hold the same)."""
        if not is_first():
            return
        state = {
            "step": self.step,
            "stage": self.stage,
            "began": self._began,
            "best": self.best,
            "stale": self.stale,
            "seconds": self.seconds,
            "skipped": self._skipped,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "recipe": json.dumps(self.recipe.data),
        }
        save(self.run / CHECKPOINT, state)

    def _resume(self) -> None:
        state = read_checkpoint(self.run, self.recipe, self.device)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self._enter(state.get("stage", 0), state.get("began", 0))  # runs of earlier versions have none
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.stale, self._skipped = state["stale"], state["skipped"]


def build(recipe: Recipe) -> nn.Module:
    """The recipe's network with fresh weights; InputError if there is none of that name or it cannot be built."""
    name, arguments = recipe["architecture"]["name"], recipe["architecture"]["arguments"]
    made = network_class(recipe["task"], name)
    try:
        return made(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"The recipe's network '{name}' cannot be built ({error}); correct its arguments.") from None


def _augmentation(recipe: Recipe) -> Augmentation | None:
    """What changes batches on the device; None where the sampler moves the images itself, or nothing does."""
    name = recipe["sampling"]["augmentation"]
    if name not in PRESETS or name == "none":
        return None
    if recipe.family.dimensions == 3:
        return augmentation_of(name, 3, recipe.preprocessing.spacing_mm)
    return augmentation_of(name, 2)
