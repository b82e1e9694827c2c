"""Optimisers and learning-rate schedules by the names that a recipe's ``[fitting]`` section gives them.

=========  ===================================================================  ===================================
optimiser  what it is                                                           who used it
=========  ===================================================================  ===================================
adam       weight decay added to the gradient                                   SLEX-Net, DR-UNet, BCDU-Net
adamw      weight decay apart from the gradient                                 HemSeg; ours
sgd        Nesterov momentum                                                    nnU-Net (momentum 0.99)
rmsprop    no momentum                                                          the stacked hourglass
=========  ===================================================================  ===================================

=========  ===================================================================  ===================================
schedule   share of the learning rate after warm-up                             who used it
=========  ===================================================================  ===================================
constant   1                                                                    DR-UNet
cosine     half a cosine from 1 to 0.02                                         ours
step       ``schedule_factor`` to the power of (step // ``schedule_every``)     SLEX-Net, HemSeg
poly       (1 - step / steps) to the power of 0.9                               nnU-Net
plateau    x ``schedule_factor`` when ``schedule_patience`` scores brought      BCDU-Net, MCGU-Net
           nothing better
=========  ===================================================================  ===================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from NeuraxisLib.errors import InputError, check_choice

#: What is taken for an option that a recipe does not give.
DEFAULTS: dict[str, Any] = {
    "optimiser": "adamw", "weight_decay": 0.0, "betas": (0.9, 0.999), "epsilon": 1e-8, "momentum": 0.9,
    "schedule": "cosine", "warmup": 0, "schedule_every": 1, "schedule_factor": 0.1, "schedule_patience": 10,
    "schedule_at": (),
}  # fmt: skip
#: Share of the learning rate at the end of the cosine.
COSINE_FLOOR = 0.02
#: Exponent of the schedule "poly", as nnU-Net has it.
POLY_POWER = 0.9
#: How much better a score must be to count as better on a plateau, as Keras has it.
PLATEAU_MARGIN = 1e-4

Make = Callable[[Iterable[nn.Parameter], Mapping[str, Any]], torch.optim.Optimizer]

#: Name -> function of parameters and options.
OPTIMISERS: dict[str, Make] = {
    "adam": lambda parameters, o: torch.optim.Adam(parameters, **_common(o), **_adaptive(o)),
    "adamw": lambda parameters, o: torch.optim.AdamW(parameters, **_common(o), **_adaptive(o)),
    "sgd": lambda parameters, o: torch.optim.SGD(
        parameters, **_common(o), momentum=o["momentum"], nesterov=o["momentum"] > 0, fused=o["fused"]
    ),
    "rmsprop": lambda parameters, o: torch.optim.RMSprop(parameters, **_common(o), eps=o["epsilon"]),
}


def optimiser_of(parameters: Iterable[nn.Parameter], options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimiser that a recipe's ``[fitting]`` section names.

    Args:
        parameters: what it moves.
        options: ``learning_rate`` and, where they differ from :data:`DEFAULTS`, ``optimiser``, ``weight_decay``,
            ``betas``, ``epsilon`` (of adam, adamw and rmsprop) and ``momentum`` (of sgd).

    Raises:
        InputError: there is no optimiser of that name, or it refuses a number.
    """
    chosen, parameters = {**DEFAULTS, **options}, list(parameters)
    chosen["fused"] = _can_fuse(parameters)
    name = chosen["optimiser"]
    check_choice("optimiser", name, OPTIMISERS)
    try:
        return OPTIMISERS[name](parameters, chosen)
    except (TypeError, ValueError) as error:
        raise InputError(f"The optimiser '{name}' refuses the recipe's numbers ({error}); correct them.") from None


class Schedule:
    """The learning rate as a share of the recipe's, by step; only "plateau" remembers anything.

    Args:
        options: ``schedule``, ``warmup`` (steps of a straight rise to 1), ``schedule_every`` (steps),
            ``schedule_factor``, ``schedule_patience`` (scores) and ``schedule_at`` (shares of the run, of
            "milestones"), where they differ from :data:`DEFAULTS`.
        steps: how many steps the run has.

    Raises:
        InputError: there is no schedule of that name.
    """

    def __init__(self, options: Mapping[str, Any], steps: int):
        self.options, self.steps = {**DEFAULTS, **options}, steps
        self._best, self._waited, self._factor = -math.inf, 0, 1.0
        check_choice("schedule", self.options["schedule"], SCHEDULES)

    def rate(self, step: int) -> float:
        """The share at a step, counted from 0."""
        warmup = self.options["warmup"]
        if step < warmup:
            return (step + 1) / warmup
        return SCHEDULES[self.options["schedule"]](self, step)

    def note(self, score: float) -> None:
        """Take a validation score (higher is better; of a loss give its negative); only "plateau" heeds it.

        As in Keras, the share falls at the ``schedule_patience``-th score in a row that is no better. Every process
        must note the same score.
        """
        if score > self._best + PLATEAU_MARGIN:
            self._best, self._waited = score, 0
            return
        self._waited += 1
        if self._waited >= self.options["schedule_patience"]:
            self._waited, self._factor = 0, self._factor * self.options["schedule_factor"]

    def state_dict(self) -> dict[str, float]:
        """What :meth:`note` has learnt, as plain numbers for the checkpoint."""
        return {"best": self._best, "waited": self._waited, "factor": self._factor}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self._best, self._waited, self._factor = state["best"], int(state["waited"]), state["factor"]

    def _cosine(self, step: int) -> float:
        warmup = self.options["warmup"]
        share = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))
        return COSINE_FLOOR + (1 - COSINE_FLOOR) * share

    def _step(self, step: int) -> float:
        return self.options["schedule_factor"] ** (step // self.options["schedule_every"])

    def _milestones(self, step: int) -> float:
        passed = sum(step >= share * self.steps for share in self.options["schedule_at"])
        return self.options["schedule_factor"] ** passed

    def _poly(self, step: int) -> float:
        return max(0.0, 1 - step / max(1, self.steps)) ** POLY_POWER

    def _plateau(self, step: int) -> float:
        return self._factor


#: Name -> share at a step.
SCHEDULES: dict[str, Callable[[Schedule, int], float]] = {
    "constant": lambda schedule, step: 1.0,
    "cosine": Schedule._cosine,
    "step": Schedule._step,
    "milestones": Schedule._milestones,
    "poly": Schedule._poly,
    "plateau": Schedule._plateau,
}


def _common(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"lr": options["learning_rate"], "weight_decay": options["weight_decay"]}


def _adaptive(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"betas": tuple(options["betas"]), "eps": options["epsilon"], "fused": options["fused"]}


def _can_fuse(parameters: list[nn.Parameter]) -> bool | None:
    """True where torch can move all parameters in one call: five times quicker on a CPU for networks of many layers."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    places = {parameter.device.type for parameter in parameters}
    return True if version >= (2, 4) and places <= {"cpu", "cuda"} and len(places) == 1 else None
