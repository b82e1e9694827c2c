"""Preprocessing as data: what a disc network sees of a spine, and the one function that shows it.

The description travels in the model file; training and inference both run it from here, so the two cannot drift.
Every sagittal slice is resampled in its own plane, so a series whose slices are shifted against each other comes out
straight; across slices images are averaged over millimetres, not over a number of slices. In the frame of the network
rows run from superior to inferior and columns from anterior to posterior, as a radiologist sees a spine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from NeuraxisLib.errors import ModelError
from SpineDiscLabelLib.discs import DISC_COUNT, FIRST_DISC, LAST_DISC

#: What a model file calls this kind of preprocessing.
KIND = "sagittal"
#: ``"display"`` as above; ``"published"``: rows from posterior to anterior, columns from inferior to superior, as the
#: released code of the paper has it (disc specification 2.4).
FRAMES = ("display", "published")
#: ``"percentile"``: the 1st to the 99th percentile of what is in the field of view become 0 to 1, up to 1.25 is kept;
#: ``"minmax"``: smallest to largest, as the released code does.
NORMALISATIONS = ("percentile", "minmax")
LOW_PERCENT, HIGH_PERCENT, BRIGHTEST = 1.0, 99.0, 1.25
#: Pixels that are sorted to find percentiles; more do not change them.
_SAMPLED = 20_000
#: Sizes above this can only be a fault of the model file.
LARGEST_TILE = 2048


@dataclass(frozen=True)
class SagittalPreprocessing:
    """How a disc network sees a spine, and which disc each of its channels means.

    Attributes:
        pixel_mm: side of the network's pixels.
        tile: pixels along each side of the square network image; divisible by 64.
        overlap: pixels that neighbouring tiles of a larger image share.
        slab_mm: distance between the positions that are looked at from right to left; thinner slices are averaged.
        offsets_mm: input channels: how far from that position each is, toward the patient's right.
        normalisation: one of :data:`NORMALISATIONS`.
        frame: one of :data:`FRAMES`.
        sigma_mm, sigma_x_mm: standard deviation of the heat maps in the plane and from right to left.
        first_disc: number of the disc (as in :mod:`SpineDiscLabelLib.discs`) that the first channel means.
        levels: channels for discs, counted downward from ``first_disc``.
        any_disc: whether one more channel, the last, shows every disc, whichever it is.
    """

    pixel_mm: float = 1.25
    tile: int = 256
    overlap: int = 64
    slab_mm: float = 4.0
    offsets_mm: tuple[float, ...] = (-4.0, 0.0, 4.0)
    normalisation: str = "percentile"
    frame: str = "display"
    sigma_mm: float = 4.0
    sigma_x_mm: float = 6.0
    first_disc: int = FIRST_DISC
    levels: int = DISC_COUNT
    any_disc: bool = True

    @classmethod
    def from_dict(cls, data: dict) -> SagittalPreprocessing:
        """Read the description of a model file; ModelError names what is wrong."""
        if data.get("kind") != KIND:
            raise ModelError("The model's preprocessing is not made for spines; choose a model of the task 'discs'.")
        try:
            numbers = {name: float(data[name]) for name in ("pixel_mm", "slab_mm", "sigma_mm", "sigma_x_mm")}
            counts = {name: int(data[name]) for name in ("tile", "overlap", "first_disc", "levels")}
            offsets = tuple(float(offset) for offset in data["offsets_mm"])
            words = {name: data[name] for name in ("normalisation", "frame", "any_disc")}
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"The model's preprocessing cannot be read ({error}); install the model again.") from None
        made = cls(**numbers, **counts, offsets_mm=offsets, **words)
        if not made._is_possible():
            raise ModelError("The model's preprocessing holds impossible values; install the model again.")
        return made

    def _is_possible(self) -> bool:
        lengths = (self.pixel_mm, self.slab_mm, self.sigma_mm, self.sigma_x_mm)
        return (
            all(0.1 <= length <= 100 for length in lengths)
            and 64 <= self.tile <= LARGEST_TILE
            and self.tile % 64 == 0
            and 0 <= self.overlap <= self.tile // 2
            and 1 <= len(self.offsets_mm) <= 64
            and all(abs(offset) <= 100 for offset in self.offsets_mm)
            and self.normalisation in NORMALISATIONS
            and self.frame in FRAMES
            and isinstance(self.any_disc, bool)
            and self.first_disc >= FIRST_DISC
            and self.levels >= 1
            and self.first_disc + self.levels - 1 <= LAST_DISC
        )

    def to_dict(self) -> dict:
        """The description as plain numbers and words, for a model file."""
        return {"kind": KIND, **asdict(self), "offsets_mm": list(self.offsets_mm)}

    @property
    def classes(self) -> int:
        """Channels of the network's output."""
        return self.levels + self.any_disc

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape (1, channels, rows, columns) of what the network is given."""
        return 1, len(self.offsets_mm), self.tile, self.tile

    def normalise(self, images: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
        """Grey values (n, channels, rows, columns) as the network wants them, float32; all channels of one image alike.

        Args:
            images: any unit; not changed.
            inside: (n, rows, columns) bool: the field of view, where grey values are looked at; the rest becomes 0.
        """
        out = np.asarray(images, np.float32).copy()
        for number, image in enumerate(out):
            seen = image if inside is None else image[:, inside[number]]
            low, high = self._range(seen)
            image -= low
            image *= 1 / (high - low) if high > low else 0
            np.clip(image, 0, BRIGHTEST, out=image)
            if inside is not None:
                image[:, ~inside[number]] = 0
        return out

    def _range(self, values: np.ndarray) -> tuple[float, float]:
        """The grey values that become 0 and 1."""
        if values.size == 0:
            return 0.0, 0.0
        if self.normalisation == "minmax":
            return float(values.min()), float(values.max())
        flat = values.reshape(-1)
        low, high = np.percentile(flat[:: max(1, flat.size // _SAMPLED)], [LOW_PERCENT, HIGH_PERCENT])
        return float(low), float(high)

    def to_network(self, images: np.ndarray) -> np.ndarray:
        """Images (..., rows, columns) from the display frame to the network's frame."""
        return images if self.frame == "display" else np.flip(images, (-2, -1)).swapaxes(-2, -1)

    def from_network(self, images: np.ndarray) -> np.ndarray:
        """The way back, for heat maps; the same turn undoes itself."""
        return self.to_network(images)


#: What the paper's code was trained to see [2.3, 2.4]: eleven discs from C2/C3, one mid-sagittal image of six slices
#: three times over. It resized every image to 256 pixels whatever its scale; 1.25 mm is what that makes of its T1.
PUBLISHED = SagittalPreprocessing(
    slab_mm=6.0,
    offsets_mm=(0.0, 0.0, 0.0),
    normalisation="minmax",
    frame="published",
    sigma_mm=2.2,
    first_disc=3,
    levels=11,
    any_disc=False,
)
