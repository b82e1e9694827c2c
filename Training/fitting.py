"""The training loop: deterministic batches, an average of the weights, exact resume, best-by-validation.

A step depends on the weights, the optimiser and its number alone: batches, augmentation and dropout draw from (seed,
step). So a run that was killed ends, on the CPU bit for bit, like one that was not, and several processes
(:mod:`Training.distributed`) share one batch between them.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from HemorrhageSegLib.networks import NETWORKS
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress
from Training import losses
from Training.augmentation import Augmentation, augmentation_of
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
from Training.guards import check_batch
from Training.losses import Output, loss_of
from Training.optimisers import Schedule, optimiser_of
from Training.recipe import Recipe
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
        self._frozen = freeze(self.network, self.options["frozen"])
        make_equal(self.network)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = optimiser_of(trained, self.options)
        self.schedule = Schedule(self.options, self.options["steps"])
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.options["precision"] == "fp16")
        if self._scaler.is_enabled() and self.device.type != "cuda":
            raise InputError("The recipe's 'fitting.precision' fp16 needs a CUDA device; set it to bf16 or fp32.")
        self.step, self.best, self.seconds, self.stale = 0, -1.0, 0.0, 0
        self._skipped, self._waited_s = 0, 0.0
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
        total, saved, started = self.options["steps"], time.monotonic(), time.monotonic() - self.seconds
        with stop_between_steps() as stopped, _made_ahead(self._batch, self.step, total, self.readers) as batches:
            while self.step < total and not self._given_up():
                batch = self._next(batches)
                loss = self._advance(batch, log)
                self.seconds = time.monotonic() - started
                progress(self.step / total, f"step {self.step} of {total}, loss {loss:.3f}")
                if self.step % LOG_EVERY == 0:
                    seconds = {"seconds": round(self.seconds, 1), "waited_s": round(self._waited_s, 1)}
                    rate = self.optimiser.param_groups[0]["lr"]
                    log({"step": self.step, "loss": loss, "learning_rate": rate, **seconds})
                stop = anywhere(stopped())
                if self.step % self.options["validate_every"] == 0 or self.step == total:
                    self._validate(log, watch)
                elif not stop and not anywhere(time.monotonic() - saved > 60 * self.options["keep_minutes"]):
                    continue
                self._save()
                saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt
        anywhere(False)  # the first process has written the best weights when the others read them
        return read(self.run / BEST, self.device)

    def _given_up(self) -> bool:
        """Whether as many validations in a row as the recipe allows brought nothing better."""
        return 0 < self.options["early_stop"] <= self.stale

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
            group["lr"] = self.options["learning_rate"] * self._rate(self.step)
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
        parts = _parts(len(batch.images), min(self.options["accumulate"], least))
        if len(parts) == 1:
            output = self._forward(batch.images, 0)
            loss = loss_of(output, batch, self.options)
            if torch.isfinite(loss):
                self._scaler.scale(loss).backward()
                average_gradients(self.network)
            return loss.detach()
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        with torch.no_grad():
            made = [_leaves(self._forward(batch.images[part], number)) for number, part in enumerate(parts)]
        for buffer, old in zip(self.network.buffers(), buffers):
            buffer.copy_(old)
        whole = [torch.cat(pieces).requires_grad_() for pieces in zip(*made)]
        loss = loss_of(self._output_like(whole), batch, self.options)
        if not torch.isfinite(loss):
            return loss.detach()
        self._scaler.scale(loss).backward()
        for number, part in enumerate(parts):
            outputs = _leaves(self._forward(batch.images[part], number))
            used = [(o, w.grad[part]) for o, w in zip(outputs, whole) if w.grad is not None]
            torch.autograd.backward([o for o, _ in used], [g for _, g in used])
        average_gradients(self.network)
        return loss.detach()

    def _forward(self, images: Tensor, number: int) -> Output:
        """Logits, or the paths of SLEX-Net where the loss needs them, in fp32; dropout is that of (step, part)."""
        torch.manual_seed(self._seed(number))
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._precision():
            output = self.network.paths(images) if self._of_paths else self.network(images)
        return output.float() if isinstance(output, Tensor) else type(output)(*(part.float() for part in output))

    def _output_like(self, leaves: list[Tensor]) -> Output:
        if not self._of_paths:
            return leaves[0]
        from HemorrhageSegLib.networks.slexnet import SlexPaths

        return SlexPaths(*leaves)

    def _seed(self, *words: int) -> int:
        """A seed for this step and process."""
        return int(np.random.SeedSequence([self.options["seed"], self.step, rank(), *words]).generate_state(1)[0])

    def _on_device(self, batch: Batch) -> Batch:
        tensors = (batch.images, batch.truth, batch.brain, batch.slice_label)
        moved = Batch(*(part.to(self.device, non_blocking=True) for part in tensors), batch.cases)
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
        return losses.named(self.options["loss"]).of_paths and hasattr(self.network, "paths")

    @property
    def _channels_last(self) -> bool:
        return self.device.type == "cpu" and self.recipe.family == "slices"

    def _precision(self) -> Any:
        """Mixed precision; not for three-dimensional convolutions on the CPU, whose bf16 gradients are wrong."""
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.options["precision"])
        if kind is None or (self.device.type == "cpu" and self.recipe.family == "patches"):
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
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.stale, self._skipped = state["stale"], state["skipped"]


@contextmanager
def _made_ahead(make: Callable[[int], Batch], first: int, stop: int, readers: int) -> Iterator[Iterator[Batch]]:
    """The batches of the steps ``first`` to ``stop`` in order, made by threads while the caller computes."""

    def batches() -> Iterator[Batch]:
        pending: deque[Future[Batch]] = deque()
        for step in range(first, stop):
            while len(pending) <= readers and step + len(pending) < stop:
                pending.append(pool.submit(make, step + len(pending)))
            yield pending.popleft().result()

    pool = ThreadPoolExecutor(readers)
    try:
        yield batches()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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


def _augmentation(recipe: Recipe) -> Augmentation | None:
    """What changes batches on the device; None where the sampler moves the slices itself, or nothing does."""
    name = recipe["sampling"]["augmentation"]
    if name in ("head", "none"):
        return None
    if recipe.family == "patches":
        return augmentation_of(name, 3, recipe.preprocessing.spacing_mm)
    return augmentation_of(name, 2)


def _parts(count: int, parts: int) -> list[slice]:
    """``count`` samples in at most ``parts`` runs of nearly equal length."""
    parts = min(parts, count)
    edges = [number * count // parts for number in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _leaves(output: Output) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)
