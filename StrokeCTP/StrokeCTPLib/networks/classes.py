"""What the outputs of a stroke network stand for, and truths in the coding of each number of classes. Needs no torch.

The released code tells 2, 3 or 4 classes (stroke and disc specification 1.6): with 4 the brain is one, with 3 it is
background, with 2 penumbra and core are one.
"""

from __future__ import annotations

import numpy as np

from StrokeCTPLib.threshold_rules import BACKGROUND, CORE, PENUMBRA

#: Number of classes -> their names, in the order of the network's outputs.
CLASSES: dict[int, tuple[str, ...]] = {
    2: ("background", "hypoperfused"),
    3: ("background", "penumbra", "core"),
    4: ("background", "brain", "penumbra", "core"),
}
#: Name of a class -> the label that is drawn for it; penumbra and core in one are drawn as penumbra.
LABEL_OF = {"background": BACKGROUND, "brain": BACKGROUND, "hypoperfused": PENUMBRA, "penumbra": PENUMBRA, "core": CORE}

#: What of a stroke can be judged -> the labels that are it.
STRUCTURES = {"hypoperfused": (PENUMBRA, CORE), "penumbra": (PENUMBRA,), "core": (CORE,)}


def classes_of(outputs: int) -> tuple[str, ...]:
    """Names of the classes of a network with so many outputs; one output (sigmoid) tells two classes."""
    return CLASSES[max(outputs, 2)]


def coded(labels: np.ndarray, brain: np.ndarray, classes: int) -> np.ndarray:
    """Labels (BACKGROUND, PENUMBRA, CORE) as numbers of classes, uint8.

    Args:
        labels: any shape; other values count as background.
        brain: bool, the same shape; a class of its own among four.
        classes: 2, 3 or 4.
    """
    labels = np.asarray(labels)
    penumbra, core = labels == PENUMBRA, labels == CORE
    if classes == 2:
        return (penumbra | core).astype(np.uint8)
    shift = classes - 3
    out = np.where(core, 2 + shift, np.where(penumbra, 1 + shift, 0))
    if shift:
        out = np.where((out == 0) & np.asarray(brain, bool), 1, out)
    return out.astype(np.uint8)


def decoded(probabilities: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """The label (BACKGROUND, PENUMBRA, CORE) of the likeliest class, uint8.

    Args:
        probabilities: (classes, ...).
        classes: their names.
    """
    return np.array([LABEL_OF[name] for name in classes], np.uint8)[np.argmax(probabilities, axis=0)]
