"""The family of uncertainties, chosen by name: what each one's map shows. How they compute is in sampled_inference.

All are maps of one probability p per voxel. The methods differ in whose probability that is: the network's own, the
mean of SLEX-Net's three paths, or the mean of several predictions (Monte-Carlo dropout, Gal and Ghahramani 2016;
Monte-Carlo BatchNorm, Teye et al. 2018; deep ensemble, Lakshminarayanan et al. 2017; test-time augmentation, Wang et
al. 2019). The entropy of a mean prediction holds the network's own doubt and the disagreement between predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.uncertainty import binary_entropy

#: Probabilities below this count as this in the SLEX-Net paper's formula, which has no value at 0.
SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class UncertaintyMethod:
    """One uncertainty.

    Attributes:
        name: what options and model files call it.
        title: what its map is called.
        description: one sentence for the reader.
        paper_formula: -p ln p of the SLEX-Net paper in place of the entropy.
        paths: p is the mean of SLEX-Net's three paths, not the reported probability.
        sampled: several predictions are averaged; the reported probability is their mean.
    """

    name: str
    title: str
    description: str
    paper_formula: bool = False
    paths: bool = False
    sampled: bool = False

    @property
    def unit(self) -> str:
        """Unit of the map."""
        return "nats" if self.paper_formula else "bits"

    @property
    def value_range(self) -> tuple[float, float]:
        """Least and largest value that the map can have."""
        return (0.0, float(np.exp(-1))) if self.paper_formula else (0.0, 1.0)

    def of(self, probability: np.ndarray) -> np.ndarray:
        """The uncertainty of probabilities in 0..1, float32 of the same shape."""
        return path_uncertainty(probability) if self.paper_formula else binary_entropy(probability)


def path_uncertainty(probability: np.ndarray) -> np.ndarray:
    """U = -p ln p of the SLEX-Net paper in nats, float32 (hemorrhage specification 1.2).

    One-sided: U(0.5) = 0.347, largest 1/e at p = 1/e. p below 1e-7 counts as 1e-7.
    """
    p = np.clip(probability, SMALLEST_PROBABILITY, 1.0)
    return (-p * np.log(p)).astype(np.float32)


METHODS = {
    method.name: method
    for method in (
        UncertaintyMethod(
            "entropy", "Uncertainty (entropy)", "Entropy of the network's probability of blood in each voxel."
        ),
        UncertaintyMethod(
            "slex_paper",
            "Uncertainty (SLEX-Net paper)",
            "-p ln p of the mean probability p of SLEX-Net's three paths, as its paper computes it from one pass.",
            paper_formula=True,
            paths=True,
        ),
        UncertaintyMethod(
            "slex_entropy",
            "Uncertainty (entropy of SLEX-Net's paths)",
            "Entropy of the mean probability of SLEX-Net's three paths, from one pass.",
            paths=True,
        ),
        UncertaintyMethod(
            "mc_dropout",
            "Uncertainty (Monte-Carlo dropout)",
            "Entropy of the mean probability of several passes with dropout switched on.",
            sampled=True,
        ),
        UncertaintyMethod(
            "mc_batchnorm",
            "Uncertainty (Monte-Carlo BatchNorm)",
            "Entropy of the mean probability of several passes, each with the BatchNorm statistics of a random batch "
            "of this patient's own images, as the training data are not at hand.",
            sampled=True,
        ),
        UncertaintyMethod(
            "ensemble",
            "Uncertainty (ensemble)",
            "Entropy of the mean probability of several networks.",
            sampled=True,
        ),
        UncertaintyMethod(
            "tta",
            "Uncertainty (test-time augmentation)",
            "Entropy of the mean probability of several passes over the image mirrored, turned by up to 15 degrees, "
            "scaled by up to 10 % and with added noise.",
            sampled=True,
        ),
    )
}
#: What the option takes: as the model file says, or one by name.
CHOICES = ("model", *METHODS)


def method_named(name: str) -> UncertaintyMethod:
    """The method of that name; InputError names the known ones otherwise."""
    if name not in METHODS:
        raise InputError(f"There is no uncertainty '{name}'; choose one of: {', '.join(CHOICES)}.")
    return METHODS[name]
