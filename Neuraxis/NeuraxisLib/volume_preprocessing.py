"""Preprocessing as data for volume networks: RAS axes, a fixed spacing, clipped and normalised HU, windows.

The description travels in the model file (``preprocessing.kind`` is "volume"). The grid is MONAI's for
``Orientation("RAS")`` and ``Spacing``: it starts at the centre of the voxel most to the left, behind and below, and
interpolates linearly without smoothing (hemorrhage specification 3.4), because that is what the published networks
were trained on. Beyond the first and last voxel the nearest one is repeated. Unlike there, a tilted or unequally
spaced series is made orthogonal on the way: each slice is interpolated in its own place, then between slices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from NeuraxisLib.errors import ModelError
from NeuraxisLib.volume import Volume

KIND = "volume"
#: What can only be a fault of the model file.
SPACING_MM = (0.1, 20.0)
PATCH = (4, 1024)
LARGEST_PATCH_VOXELS = 1 << 25
LARGEST_OVERLAP = 0.9


@dataclass(frozen=True)
class VolumePreprocessing:
    """How a volume network sees a head. Axes are (x, y, z): toward right, anterior, superior.

    Attributes:
        spacing_mm: voxel size along x, y, z.
        clip_hu: (lowest, highest) HU; what lies beyond is set to these.
        mean_hu, std_hu: the network sees (HU - mean) / std.
        patch: voxels of a window along x, y, z.
        overlap: share of a window that the next one covers too.
        padding_hu: what surrounds a volume smaller than a window; ``mean_hu`` (0 to the network) as MONAI pads.
    """

    spacing_mm: tuple[float, float, float]
    clip_hu: tuple[float, float]
    mean_hu: float
    std_hu: float
    patch: tuple[int, int, int]
    overlap: float = 0.25
    padding_hu: float | None = None

    @classmethod
    def from_dict(cls, data: dict) -> VolumePreprocessing:
        """Read the description of a model file; ModelError names what is wrong."""
        fields = set(cls.__dataclass_fields__)
        unknown = sorted(set(data) - fields - {"kind"})
        missing = sorted(fields - set(data) - {"overlap", "padding_hu"})
        if unknown or missing or data.get("kind", KIND) != KIND:
            what = f"has no entry '{missing[0]}'" if missing else f"has an unknown entry '{(unknown or ['kind'])[0]}'"
            raise ModelError(f"The model's preprocessing {what}; install the model again.")
        try:
            padding = data.get("padding_hu")
            made = cls(
                _numbers(data["spacing_mm"], 3),
                _numbers(data["clip_hu"], 2),
                _number(data["mean_hu"]),
                _number(data["std_hu"]),
                tuple(_whole(value) for value in _numbers(data["patch"], 3)),
                _number(data.get("overlap", 0.25)),
                None if padding is None else _number(padding),
            )
        except (TypeError, ValueError) as error:
            raise ModelError(f"The model's preprocessing cannot be read ({error}); install the model again.") from None
        wrong = next((name for name, fits in made._checks() if not fits), None)
        if wrong:
            raise ModelError(f"The model's preprocessing has an impossible '{wrong}'; install the model again.")
        return made

    def _checks(self) -> Iterator[tuple[str, bool]]:
        yield "spacing_mm", all(SPACING_MM[0] <= value <= SPACING_MM[1] for value in self.spacing_mm)
        yield "clip_hu", self.clip_hu[0] < self.clip_hu[1]
        yield "std_hu", self.std_hu > 0
        yield "patch", all(PATCH[0] <= value <= PATCH[1] for value in self.patch)
        yield "patch", math.prod(self.patch) <= LARGEST_PATCH_VOXELS
        yield "overlap", 0 <= self.overlap <= LARGEST_OVERLAP

    def to_dict(self) -> dict:
        """The description as plain numbers, for a model file."""
        return {"kind": KIND, **asdict(self)}

    def normalised(self, hu: np.ndarray) -> np.ndarray:
        """What the network sees of HU values: clipped, then (HU - mean) / std; float32 of the same shape."""
        values = np.clip(hu, *self.clip_hu).astype(np.float32)
        values -= np.float32(self.mean_hu)
        values /= np.float32(self.std_hu)
        return values

    def padded(self, normalised: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
        """Normalised values (x, y, z) enlarged to at least one patch, and where the original lies in them."""
        missing = [max(0, size - length) for size, length in zip(self.patch, normalised.shape)]
        before = [gap // 2 for gap in missing]
        inside = tuple(slice(start, start + length) for start, length in zip(before, normalised.shape))
        if not any(missing):
            return normalised, inside
        padding = self.mean_hu if self.padding_hu is None else self.padding_hu
        value = (padding - self.mean_hu) / self.std_hu
        widths = [(start, gap - start) for start, gap in zip(before, missing)]
        return np.pad(normalised, widths, constant_values=normalised.dtype.type(value)), inside


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _numbers(values: object, count: int) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise ValueError(f"{values!r} are not {count} numbers")
    return tuple(_number(value) for value in values)


# -- the grid -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """Linear interpolation along one axis: output n is between samples ``lower[n]`` and ``lower[n] + 1``."""

    lower: np.ndarray
    weight: np.ndarray

    @classmethod
    def at(cls, positions: np.ndarray, count: int) -> _Reading:
        """Read a signal of ``count`` samples at ``positions`` (n,); the ends are repeated beyond them."""
        positions = np.clip(positions, 0, count - 1)
        lower = np.minimum(positions.astype(int), max(count - 2, 0))
        return cls(lower, (positions - lower).astype(np.float32))

    def linear(self, array: np.ndarray, axis: int) -> np.ndarray:
        """float32 values at the positions along an axis."""
        weight = self.weight.reshape([-1 if n == axis else 1 for n in range(array.ndim)])
        low = np.take(array, self.lower, axis).astype(np.float32, copy=False)
        high = np.take(array, np.minimum(self.lower + 1, array.shape[axis] - 1), axis)
        return low + (high - low) * weight

    @property
    def nearest(self) -> np.ndarray:
        """(n,) the sample nearest to every position."""
        return self.lower + (self.weight > 0.5)


@dataclass(frozen=True)
class VolumeGrid:
    """The orthogonal grid (x, y, z) of one axial volume for one preprocessing, and the way there and back.

    Attributes:
        shape: voxels along x, y, z.
        ijk_to_ras: 4x4 matrix from (x, y, z, 1) to RAS mm.
    """

    shape: tuple[int, int, int]
    ijk_to_ras: np.ndarray
    _across: _Reading
    _there: tuple[tuple[_Reading, _Reading], ...]
    _back: tuple[tuple[_Reading, _Reading], ...]
    _back_across: _Reading

    def forward(self, array: np.ndarray) -> np.ndarray:
        """(k, j, i) values on the axial source grid -> (x, y, z) float32, linear."""
        out = np.zeros(self.shape[::-1], np.float32)
        lower, weight = self._across.lower, self._across.weight
        for k, (columns, rows) in enumerate(self._there):
            shares = np.where(lower == k, 1 - weight, np.where(lower + 1 == k, weight, 0))
            used = np.flatnonzero(shares)  # of thin slices most are between those that are read
            if used.size:
                out[used] += shares[used, None, None] * rows.linear(columns.linear(array[k], 1), 0)
        return np.ascontiguousarray(out.transpose(2, 1, 0))

    def forward_labels(self, array: np.ndarray) -> np.ndarray:
        """(k, j, i) labels on the axial source grid -> (x, y, z) of the same type, nearest."""
        slices = [(array[k], *self._there[k]) for k in self._across.nearest]
        planes = [plane[np.ix_(rows.nearest, columns.nearest)] for plane, columns, rows in slices]
        return np.ascontiguousarray(np.stack(planes).transpose(2, 1, 0))

    def backward(self, values: np.ndarray) -> np.ndarray:
        """(x, y, z) grid values -> (k, j, i) float32 on the axial source grid, linear."""
        planes = values.transpose(2, 1, 0)
        shape = len(self._back), len(self._back[0][1].lower), len(self._back[0][0].lower)
        out = np.zeros(shape, np.float32)
        for k, (columns, rows) in enumerate(self._back):
            low, weight = self._back_across.lower[k], self._back_across.weight[k]
            plane = planes[low] if weight == 0 else planes[low] * (1 - weight) + planes[low + 1] * weight
            if plane.any():
                out[k] = columns.linear(rows.linear(plane, 0), 1)
        return out


def volume_grid(volume: Volume, preprocessing: VolumePreprocessing) -> VolumeGrid:
    """The grid over the whole of a volume.

    ``volume`` must be axial (see :meth:`Volume.axial`), its axes toward left, posterior and superior. Raises
    GeometryError for skewed rows and columns.
    """
    volume.require_perpendicular_rows()
    steps = np.array([np.linalg.norm(volume.column_step_ras), np.linalg.norm(volume.row_step_ras)])
    to_ras = np.stack([-volume.column_step_ras / steps[0], -volume.row_step_ras / steps[1], volume.normal_ras])
    counts = volume.array.shape[::-1]
    first_mm = volume.origins_ras @ to_ras.T  # (K, 3) along x, y, z of voxel (0, 0), the last one along x and y
    last_mm = first_mm[:, :2] - steps * (np.array(counts[:2]) - 1)
    low = np.array([*last_mm.min(axis=0), first_mm[0, 2]])
    high = np.array([*first_mm[:, :2].max(axis=0), first_mm[-1, 2]])
    spacing = np.array(preprocessing.spacing_mm)
    shape = tuple(int(np.round(extent + 1)) for extent in (high - low) / spacing)
    targets = [start + step * np.arange(count) for start, step, count in zip(low, spacing, shape)]
    there, back = [], []
    for corner in first_mm if np.ptp(first_mm[:, :2], axis=0).max() > 1e-4 else first_mm[:1]:
        there.append(tuple(_Reading.at((corner[n] - targets[n]) / steps[n], counts[n]) for n in range(2)))
        sources = [corner[n] - steps[n] * np.arange(counts[n]) for n in range(2)]
        back.append(tuple(_Reading.at((sources[n] - low[n]) / spacing[n], shape[n]) for n in range(2)))
    if len(there) == 1:  # slices that are not shifted share their weights
        there, back = there * counts[2], back * counts[2]
    across = np.interp(targets[2], first_mm[:, 2], np.arange(counts[2]))
    matrix = np.eye(4)
    matrix[:3, :3] = to_ras.T * spacing
    matrix[:3, 3] = to_ras.T @ low
    return VolumeGrid(
        shape, matrix, _Reading.at(across, counts[2]), tuple(there), tuple(back),
        _Reading.at((first_mm[:, 2] - low[2]) / spacing[2], shape[2]),
    )  # fmt: skip
