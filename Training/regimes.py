"""What a family does around the optimiser: stages of the training, penalties on weights, limits after each step."""

from __future__ import annotations

from torch import Tensor, nn

from Training.recipe import Recipe


class Regime:
    """The plain regime: one stage in which everything trains, no penalty, no limit. Families inherit from it.

    A stage ends after ``fitting.steps`` steps, or when ``fitting.early_stop`` validations in a row brought nothing
    better; the next one goes on from the best weights so far, with a new optimiser.

    Args:
        recipe: of the run.

    Attributes:
        stages: their names, in order.
    """

    stages: tuple[str, ...] = ("all",)

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    def enter(self, stage: str, network: nn.Module) -> list[nn.Module]:
        """Freeze and unfreeze (``requires_grad``) for a stage; returns the modules to keep in evaluation mode."""
        return []

    def penalty(self, network: nn.Module) -> Tensor | None:
        """What is added to the loss, or None."""
        return None

    def limit(self, network: nn.Module) -> None:
        """Bring the weights back into their bounds, in place; called after each step of the optimiser."""
