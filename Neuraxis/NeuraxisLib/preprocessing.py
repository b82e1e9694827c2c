"""Preprocessing as data: what a slice network wants of a volume, and the one function that does it.

The description travels in the model file; training and inference both run it from here, so the two cannot drift.
All resampling is separable and linear, so each slice goes through two small matrices, and a tilted or unequally
spaced series is made orthogonal on the way without interpolating between slices.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.volume import Volume

#: Slice gaps at or above this share of ``slab_mm`` are used as they are; thinner slices are averaged into slabs.
KEEP_GAP_SHARE = 0.7
#: Sizes above this can only be a fault of the model file.
LARGEST_SIZE = 2048
#: Value of what lies outside the field of view.
AIR_HU = -1000.0
#: Standard deviation (of grey values -1..1) that an image of one value is divided by.
SMALLEST_SPREAD = 1e-6
NORMALISATIONS = ("window", "zscore")


@dataclass(frozen=True)
class Channel:
    """One input channel: which slice, seen through which window.

    Attributes:
        offset: slabs above (+) or below (-) the one predicted.
        low_hu: HU at and below which the image is black (-1).
        high_hu: HU at and above which it is white (+1).
    """

    offset: int
    low_hu: float
    high_hu: float


@dataclass(frozen=True)
class SlicePreprocessing:
    """How an axial slice network sees a head.

    Attributes:
        size: pixels along each side of the square network image.
        margin: air left around the brain box on each side, as a share of the box.
        slab_mm: distance between the slices the network was trained on; thinner source slices are averaged to it.
        channels: the input channels.
        normalisation: ``"window"`` leaves the windowed grey values in -1..1; ``"zscore"`` then takes the mean of all
            pixels of all channels of an input from them and divides by their standard deviation, as SLEX-Net's
            released code does (hemorrhage specification 1.3).
        brain_only: black out what lies outside the brain, slab by slab, before that.
    """

    size: int
    margin: float
    slab_mm: float
    channels: tuple[Channel, ...]
    normalisation: str = "window"
    brain_only: bool = False

    @classmethod
    def from_dict(cls, data: dict) -> SlicePreprocessing:
        """Read the description of a model file; ModelError names what is wrong."""
        try:
            channels = tuple(
                Channel(int(channel["offset"]), float(channel["low_hu"]), float(channel["high_hu"]))
                for channel in data["channels"]
            )
            normalisation, brain_only = data.get("normalisation", "window"), data.get("brain_only", False)
            made = cls(
                int(data["size"]), float(data["margin"]), float(data["slab_mm"]), channels, normalisation, brain_only
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"The model's preprocessing cannot be read ({error}); install the model again.") from None
        sizes_fit = 32 <= made.size <= LARGEST_SIZE and made.size % 32 == 0
        windows_fit = channels and all(channel.low_hu < channel.high_hu for channel in channels)
        words_fit = made.normalisation in NORMALISATIONS and isinstance(made.brain_only, bool)
        if not (sizes_fit and windows_fit and words_fit and 0 <= made.margin < 1 and 0 < made.slab_mm < np.inf):
            raise ModelError("The model's preprocessing holds impossible values; install the model again.")
        return made

    def to_dict(self) -> dict:
        """The description as plain numbers, for a model file; what is as in older files is left out as there."""
        made = asdict(self)
        if self.normalisation == "window" and not self.brain_only:
            del made["normalisation"], made["brain_only"]
        return made

    def images(
        self, slabs_hu: np.ndarray, centres: np.ndarray | None = None, brain: np.ndarray | None = None
    ) -> np.ndarray:
        """Network input (n, channels, size, size) float32 for the slabs ``centres`` (all by default).

        Beyond the first and last slab the nearest one is repeated.

        Args:
            slabs_hu: (slabs, size, size) HU.
            centres: numbers of the slabs to predict.
            brain: (slabs, size, size) bool; needed where ``brain_only`` is set.

        Raises:
            ValueError: the brain is missing.
        """
        if self.brain_only and brain is None:
            raise ValueError("this preprocessing shows the network the brain alone and needs its mask")
        centres = np.arange(len(slabs_hu)) if centres is None else np.asarray(centres)
        out = np.empty((len(centres), len(self.channels), *slabs_hu.shape[1:]), np.float32)
        for index, channel in enumerate(self.channels):
            at = np.clip(centres + channel.offset, 0, len(slabs_hu) - 1)
            centre, half = (channel.low_hu + channel.high_hu) / 2, (channel.high_hu - channel.low_hu) / 2
            np.clip((slabs_hu[at] - centre) / half, -1, 1, out=out[:, index])
            if self.brain_only:
                out[:, index][~brain[at].astype(bool)] = -1
        if self.normalisation == "zscore":
            out -= out.mean(axis=(1, 2, 3), keepdims=True)
            out /= np.maximum(out.std(axis=(1, 2, 3), keepdims=True), SMALLEST_SPREAD)
        return out


@dataclass(frozen=True)
class SliceGrid:
    """The orthogonal grid of one volume for one preprocessing, and the way there and back.

    Attributes:
        pixel_mm: pixel side.
        rows: (K, size, J) weights that resample the rows of each source slice.
        columns: (K, size, I) the same for the columns.
        slabs: (n, K) weights that average source slices into slabs; the identity for thick slices.
        back_slabs: (K, n) weights that take slab values back to source slices.
        back_rows: (K, J, size), back_columns: (K, I, size) the way back in-plane.
    """

    pixel_mm: float
    rows: np.ndarray
    columns: np.ndarray
    slabs: np.ndarray
    back_slabs: np.ndarray
    back_rows: np.ndarray
    back_columns: np.ndarray

    def forward(self, array: np.ndarray, outside: float = AIR_HU) -> np.ndarray:
        """(K, J, I) source values -> (n, size, size) float32 on the grid; ``outside`` fills beyond the image."""
        size = self.rows.shape[1]
        out = np.zeros((len(self.slabs), size, size), np.float32)
        for k, (rows, columns) in enumerate(zip(_sparse(self.rows), _sparse(self.columns))):
            used = np.flatnonzero(self.slabs[:, k])
            if used.size:
                shifted = array[k].astype(np.float32) - outside
                image = (columns @ (rows @ shifted).T).T
                out[used] += self.slabs[used, k, None, None] * image
        return out + outside

    def backward(self, values: np.ndarray) -> np.ndarray:
        """(n, size, size) grid values (probabilities) -> (K, J, I) float32 on the source grid; 0 outside."""
        out = np.zeros((len(self.back_slabs), self.back_rows.shape[1], self.back_columns.shape[1]), np.float32)
        for k, (rows, columns) in enumerate(zip(_sparse(self.back_rows), _sparse(self.back_columns))):
            used = np.flatnonzero(self.back_slabs[k])
            if used.size:
                image = np.tensordot(self.back_slabs[k, used], values[used], axes=1)
                if image.any():
                    out[k] = rows @ (columns @ image.T).T
        return out


def slice_grid(volume: Volume, mask: np.ndarray, preprocessing: SlicePreprocessing) -> SliceGrid:
    """The grid over the box of ``mask`` (k, j, i) of the whole volume, in-plane at the network's size.

    ``volume`` must be axial (see :meth:`Volume.axial`). Raises GeometryError for skewed rows and columns,
    InputError for an empty mask.
    """
    volume.require_perpendicular_rows()
    if not mask.any():
        raise InputError("No brain is in view; choose a head CT that shows the brain.")
    offsets, steps = in_plane(volume)
    low, high = _box_mm(mask, offsets, steps)
    side_mm = float((high - low).max()) * (1 + 2 * preprocessing.margin)
    pixel_mm = side_mm / preprocessing.size
    first = (low + high) / 2 - side_mm / 2 + pixel_mm / 2
    targets = first + pixel_mm * np.arange(preprocessing.size)[:, None]  # (size, 2) in mm along columns, rows
    there, back = [], []
    for axis, count in enumerate(volume.array.shape[:-3:-1]):
        at = (targets[:, axis] - offsets[:, axis, None]) / steps[axis]
        there.append(weights_of_slices(at, count, pixel_mm / steps[axis]))
        source_mm = offsets[:, axis, None] + steps[axis] * np.arange(count)
        at = (source_mm - first[axis]) / pixel_mm
        back.append(weights_of_slices(at, preprocessing.size, steps[axis] / pixel_mm))
    slabs, back_slabs = _slab_weights(volume, preprocessing.slab_mm)
    return SliceGrid(pixel_mm, there[1], there[0], slabs, back_slabs, back[1], back[0])


def in_plane(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (K, 2) in mm of each slice's first voxel along (columns, rows), and the two pixel steps in mm."""
    steps = np.array([np.linalg.norm(volume.column_step_ras), np.linalg.norm(volume.row_step_ras)])
    axes = np.stack([volume.column_step_ras / steps[0], volume.row_step_ras / steps[1]])
    return volume.origins_ras @ axes.T, steps


def _box_mm(mask: np.ndarray, offsets: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners (2,) of the box of a mask, to its voxels' edges, along (columns, rows) in mm; offsets per slice."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        for axis, profile in enumerate((mask[k].any(axis=0), mask[k].any(axis=1))):
            found = np.flatnonzero(profile)
            low[axis] = min(low[axis], offsets[k, axis] + steps[axis] * (found[0] - 0.5))
            high[axis] = max(high[axis], offsets[k, axis] + steps[axis] * (found[-1] + 0.5))
    return low, high


def weights_of_slices(at: np.ndarray, count: int, scale: float) -> np.ndarray:
    """(K, n, count) weights for positions ``at`` (K, n); slices that are not shifted share one matrix in memory."""
    if np.allclose(at, at[0], rtol=0, atol=1e-4):
        weights = linear_weights(at[0], count, scale)
        return np.broadcast_to(weights, (len(at), *weights.shape))
    return np.stack([linear_weights(row, count, scale) for row in at])


def _sparse(weights: np.ndarray) -> list:
    """The (n, count) weights of every slice as sparse matrices: most are 0; slices that share them share one."""
    from scipy.sparse import csr_array

    if weights.strides[0] == 0:
        return [csr_array(weights[0])] * len(weights)
    return [csr_array(each) for each in weights]


def linear_weights(at: np.ndarray, count: int, scale: float) -> np.ndarray:
    """(len(at), count) weights reading a signal of ``count`` samples at positions ``at``.

    Linear interpolation, widened to a triangle of ``scale`` samples when the output is coarser (anti-aliasing).
    Rows sum to less than one where the triangle reaches past the signal, so that what lies outside keeps its share.
    """
    width = max(1.0, scale)
    reach = int(np.ceil(width)) + 1
    nearest = np.floor(at).astype(int)
    taps = nearest[:, None] + np.arange(-reach, reach + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(taps - at[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    out = np.zeros((len(at), count), np.float32)
    inside = (taps >= 0) & (taps < count)
    row = np.broadcast_to(np.arange(len(at))[:, None], taps.shape)
    out[row[inside], taps[inside]] = weights[inside]
    return out


def _slab_weights(volume: Volume, slab_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n, K) into slabs and (K, n) back; identities when the slices are thick enough already."""
    count = volume.slice_count
    thickness = volume.slice_thicknesses_mm
    if count == 1 or np.median(thickness) >= KEEP_GAP_SHARE * slab_mm:
        return np.eye(count, dtype=np.float32), np.eye(count, dtype=np.float32)
    positions = volume.slice_positions_mm - volume.slice_positions_mm[0]
    n = max(1, int(round((positions[-1] + thickness.mean()) / slab_mm)))
    centres = (np.arange(n) + 0.5) * slab_mm - (n * slab_mm - positions[-1]) / 2
    lower = np.maximum(centres[:, None] - slab_mm / 2, positions - thickness / 2)
    upper = np.minimum(centres[:, None] + slab_mm / 2, positions + thickness / 2)
    weights = np.maximum(upper - lower, 0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    at = np.clip((positions - centres[0]) / slab_mm, 0, n - 1)
    back = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n)))
    return weights.astype(np.float32), back.astype(np.float32)
