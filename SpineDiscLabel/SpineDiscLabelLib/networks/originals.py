"""The original whose checkpoints can be imported: where its tensors go in our network, what it was shown.

The checkpoint is ``{"model_weights": state dict}`` whose names begin with ``module.``. The released code keeps the
layout of the public PyTorch stacked hourglass, in which ``hg.<stack>.hg.<level>.<part>`` are the residuals of a node,
level 3 outermost, and ``fc_`` and ``score_`` hand on to the next stack; the attention is one ``attention`` sequence
beside them. A file of another layout is refused by the first tensor that has no place or another shape. No file says
which discs the channels mean and how large a pixel was: see :data:`SpineDiscLabelLib.preprocessing.PUBLISHED`. Nothing
here needs torch.
"""

from __future__ import annotations

from NeuraxisLib.checkpoint_import import Original
from SpineDiscLabelLib.networks import NETWORKS
from SpineDiscLabelLib.preprocessing import PUBLISHED, SagittalPreprocessing

_PARTS = ("skip", "down", "up")


def _hourglass_names() -> list[tuple[str, str]]:
    """From ``hg.<stack>.hg.<level>.<part>`` to the nested hourglasses of ours."""
    names = [(r"^hg\.(\d+)\.hg\.0\.3\.", rf"stacks.\1.hourglass.{'inner.' * 4}")]
    for level in range(4):
        path = "inner." * (3 - level)
        for number, part in enumerate(_PARTS):
            names.append((rf"^hg\.(\d+)\.hg\.{level}\.{number}\.", rf"stacks.\1.hourglass.{path}{part}."))
    return names


#: (regular expression, replacement) from the tensor names of the original to ours.
TORCH_NAMES = (
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    *((rf"^layer{number}\.0\.", f"{ours}.") for number, ours in enumerate(("first", "second", "third"), start=1)),
    *_hourglass_names(),
    (r"^res\.(\d+)\.", r"stacks.\1.residuals."),
    (r"^fc\.(\d+)\.", r"stacks.\1.mix."),
    (r"^score\.(\d+)\.", r"stacks.\1.score."),
    (r"^fc_\.(\d+)\.", r"stacks.\1.features_on."),
    (r"^score_\.(\d+)\.", r"stacks.\1.score_on."),
    (r"\bdownsample\.0\.", "shortcut."),
    *((rf"(?<!\w)bn{n}\.", f"layers.{3 * n - 3}.") for n in (1, 2, 3)),
    *((rf"(?<!\w)conv{n}\.", f"layers.{3 * n - 1}.") for n in (1, 2, 3)),
)


def input_shape(preprocessing: dict) -> tuple[int, ...]:
    """Shape (1, channels, rows, columns) of what the network is given; ModelError if it cannot be read."""
    return SagittalPreprocessing.from_dict(preprocessing).input_shape


#: Network -> its original. ``neuraxis models import --architecture`` takes these names.
ORIGINALS = {
    "StackedHourglass": Original(
        NETWORKS["StackedHourglass"],
        "the released code of the hourglass with multi-level attention for disc labelling (Azad et al. 2021)",
        PUBLISHED.to_dict(),
        input_shape,
        "The channels are taken to mean C2/C3 to T5/T6, as in the labels of the time of publication, and the pixels to "
        "be 1.25 mm, as the released code made them of its T1 images.",
        uncertainty={"kind": "none"},
        torch_names=TORCH_NAMES,
    ),
}
