"""Volume: an image array that never travels without its geometry.

Axis order is (k, j, i) = (slice, row, column), with time first if there is one. Geometry is an IJK-to-RAS matrix
in mm that may be sheared (gantry tilt); a series whose slice gaps differ also carries the position of every slice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from NeuraxisLib.errors import GeometryError

#: Cosine above which two in-plane axes, or a slice step and an in-plane axis, are no longer called orthogonal.
ORTHOGONAL_TOLERANCE = 1e-3
#: Relative spread of slice gaps below which a series counts as uniformly spaced.
UNIFORM_TOLERANCE = 0.01
#: Facts in ``meta`` that somebody typed freely and that may so name a patient (DICOM's SeriesDescription): they help
#: to choose a series, and are never written with a result.
FREE_TEXT_FACTS = ("description",)


@dataclass(frozen=True)
class Volume:
    """An image and where it lies in the patient.

    Attributes:
        array: shape (k, j, i), or (t, k, j, i) when ``frame_times_s`` is given.
        ijk_to_ras: 4x4 matrix from (i, j, k, 1) to RAS mm. For slices at unequal gaps it is the mean fit.
        unit: unit of the voxel values, such as ``"HU"``; empty for labels and probabilities.
        slice_origins_ras: (K, 3) RAS mm of voxel (i=0, j=0) of every slice; only for series with unequal gaps.
        frame_times_s: (T,) acquisition time of every frame; (T, K) where every slice of a frame has its own.
        meta: harmless facts about the source (modality, kernel), and FREE_TEXT_FACTS. Never a name, id or path.
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray
    unit: str = ""
    slice_origins_ras: np.ndarray | None = None
    frame_times_s: np.ndarray | None = None
    meta: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        matrix = np.asarray(self.ijk_to_ras, dtype=float)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise GeometryError("The image's position matrix is singular or not finite; export the series again.")
        object.__setattr__(self, "ijk_to_ras", matrix)
        if self.slice_origins_ras is not None:
            origins = np.asarray(self.slice_origins_ras, dtype=float)
            if origins.shape != (self.slice_count, 3):
                raise GeometryError("The image has a different number of slices and of slice positions.")
            object.__setattr__(self, "slice_origins_ras", origins)

    # -- shape ------------------------------------------------------------------------------------------------

    @property
    def slice_count(self) -> int:
        """Number of slices K."""
        return self.array.shape[-3]

    def like(self, array: np.ndarray, unit: str = "") -> Volume:
        """Another array on this volume's spatial grid (a label map, a probability map)."""
        if array.shape[-3:] != self.array.shape[-3:]:
            raise GeometryError(f"An array of shape {array.shape} does not fit a grid of {self.array.shape}.")
        return replace(self, array=array, unit=unit, frame_times_s=None if array.ndim == 3 else self.frame_times_s)

    # -- geometry ---------------------------------------------------------------------------------------------

    @property
    def column_step_ras(self) -> np.ndarray:
        """RAS mm from one column (i) to the next."""
        return self.ijk_to_ras[:3, 0]

    @property
    def row_step_ras(self) -> np.ndarray:
        """RAS mm from one row (j) to the next."""
        return self.ijk_to_ras[:3, 1]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(column, row, slice) spacing in mm; the slice spacing is measured along the slice normal."""
        slices = float(np.mean(self.slice_thicknesses_mm)) if self.slice_count > 1 else abs(self._normal_step())
        return float(np.linalg.norm(self.column_step_ras)), float(np.linalg.norm(self.row_step_ras)), slices

    @property
    def normal_ras(self) -> np.ndarray:
        """Unit normal of the slices, pointing the way k counts."""
        normal = np.cross(self.column_step_ras, self.row_step_ras)
        normal = normal / np.linalg.norm(normal)
        return normal if normal @ self.ijk_to_ras[:3, 2] >= 0 else -normal

    def _normal_step(self) -> float:
        return float(self.normal_ras @ self.ijk_to_ras[:3, 2])

    @property
    def origins_ras(self) -> np.ndarray:
        """(K, 3) RAS mm of voxel (i=0, j=0) of every slice."""
        if self.slice_origins_ras is not None:
            return self.slice_origins_ras
        k = np.arange(self.slice_count)[:, None]
        return self.ijk_to_ras[:3, 3] + k * self.ijk_to_ras[:3, 2]

    @property
    def slice_positions_mm(self) -> np.ndarray:
        """(K,) position of every slice along the normal."""
        return self.origins_ras @ self.normal_ras

    @property
    def slice_thicknesses_mm(self) -> np.ndarray:
        """(K,) tissue each slice stands for: half the gap to either neighbour, the whole gap at the ends."""
        if self.slice_count == 1:
            return np.array([self._normal_step()])
        gaps = np.abs(np.diff(self.slice_positions_mm))
        return np.concatenate([gaps[:1], (gaps[:-1] + gaps[1:]) / 2, gaps[-1:]])

    @property
    def voxel_volumes_ml(self) -> np.ndarray:
        """(K,) volume of one voxel of every slice in mL: in-plane area times local slice thickness."""
        area_mm2 = np.linalg.norm(np.cross(self.column_step_ras, self.row_step_ras))
        return area_mm2 * self.slice_thicknesses_mm / 1000.0

    @property
    def is_uniform(self) -> bool:
        """Whether all slice gaps are equal to 1 %."""
        if self.slice_origins_ras is None:
            return True
        gaps = np.diff(self.slice_positions_mm)
        return bool(np.ptp(gaps) <= UNIFORM_TOLERANCE * abs(gaps.mean()))

    @property
    def is_sheared(self) -> bool:
        """Whether the slices are shifted against each other in-plane, as by a tilted gantry."""
        step = self.ijk_to_ras[:3, 2]
        return abs(step @ self.normal_ras) < (1 - ORTHOGONAL_TOLERANCE) * np.linalg.norm(step)

    def require_perpendicular_rows(self) -> None:
        """Raise GeometryError if rows and columns are not at right angles (no scanner makes such slices)."""
        cosine = self.column_step_ras @ self.row_step_ras
        cosine /= np.linalg.norm(self.column_step_ras) * np.linalg.norm(self.row_step_ras)
        if abs(cosine) > ORTHOGONAL_TOLERANCE:
            raise GeometryError(
                "The image's rows and columns are not at right angles, so it cannot be measured; "
                "harden its transform or export the series again."
            )

    def regular(self) -> Volume:
        """The same image on equal slice gaps (linear between slices, nearest for whole-number arrays).

        For files and viewers whose geometry is one matrix. Uniform volumes are returned as they are. The new gap
        is the smallest source gap, but never makes more than four times the slices.
        """
        if self.is_uniform:
            return replace(self, slice_origins_ras=None)
        positions, origins = self.slice_positions_mm, self.origins_ras
        span = positions[-1] - positions[0]
        count = min(int(round(span / np.diff(positions).min())), 4 * self.slice_count) + 1
        targets = np.linspace(positions[0], positions[-1], count)
        at = np.interp(targets, positions, np.arange(self.slice_count))
        lower = np.minimum(at.astype(int), self.slice_count - 2)
        weight = at - lower
        if np.issubdtype(self.array.dtype, np.integer) and self.unit == "":
            array = self.array[..., np.rint(at).astype(int), :, :]
        else:
            w = weight[:, None, None].astype(np.float32)
            blend = self.array[..., lower, :, :] * (1 - w) + self.array[..., lower + 1, :, :] * w
            array = np.rint(blend).astype(self.array.dtype) if self.array.dtype.kind in "iu" else blend
        matrix = self.ijk_to_ras.copy()
        matrix[:3, 2] = (origins[-1] - origins[0]) / (count - 1)
        matrix[:3, 3] = origins[0]
        return replace(self, array=array, ijk_to_ras=matrix, slice_origins_ras=None)

    # -- orientation ------------------------------------------------------------------------------------------

    def axial(self) -> tuple[Volume, AxisOrder]:
        """The volume with slices counted upward (S), rows toward posterior (P), columns toward left (L).

        Returns the reordered view and the :class:`AxisOrder` that takes arrays back. Axes go to the nearest
        anatomical direction; an oblique head stays oblique.
        """
        order = AxisOrder.toward_lps(self)
        return order.apply(self), order


@dataclass(frozen=True)
class AxisOrder:
    """A permutation and flips of the (k, j, i) axes, with its inverse."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def toward_lps(cls, volume: Volume) -> AxisOrder:
        """The order that makes i run left, j posterior and k up, as nearly as the stored axes allow."""
        steps = volume.ijk_to_ras[:3, :3] / np.linalg.norm(volume.ijk_to_ras[:3, :3], axis=0)
        ijk_of = {}
        for ras_axis in (2, 0, 1):  # the slice axis first: it is the one that matters to slice-wise networks
            free = [axis for axis in range(3) if axis not in ijk_of.values()]
            ijk_of[ras_axis] = max(free, key=lambda axis: abs(steps[ras_axis, axis]))
        wanted = (ijk_of[2], ijk_of[1], ijk_of[0])  # source ijk axis for the new k, j, i
        signs = (1, -1, -1)  # toward superior, posterior, left
        flips = tuple(bool(steps[ras, axis] * sign < 0) for ras, axis, sign in zip((2, 1, 0), wanted, signs))
        if wanted[0] != 2 and volume.slice_origins_ras is not None:
            raise GeometryError("A series with unequal slice gaps must be axial; export it on equal gaps.")
        return cls(axes=tuple(2 - axis for axis in wanted), flips=flips)

    def apply_array(self, array: np.ndarray) -> np.ndarray:
        """Reorder a (k, j, i) or (t, k, j, i) array (a view, not a copy)."""
        return self._flipped(_transposed(array, self.axes))

    def undo_array(self, array: np.ndarray) -> np.ndarray:
        """Take a reordered (k, j, i) or (t, k, j, i) array back to the stored order (a view, not a copy)."""
        return _transposed(self._flipped(array), tuple(np.argsort(self.axes)))

    def _flipped(self, array: np.ndarray) -> np.ndarray:
        return array[(..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))]

    def apply_times(self, times_s: np.ndarray | None) -> np.ndarray | None:
        """Frame times (t,) or (t, k) of the reordered volume.

        Raises:
            GeometryError: slices that have their own times are not the axial ones.
        """
        if times_s is None or np.ndim(times_s) == 1:
            return times_s
        if self.axes[0] != 0:
            raise GeometryError("Slices with times of their own must be axial; give one time per frame instead.")
        return times_s[:, ::-1] if self.flips[0] else times_s

    def apply(self, volume: Volume) -> Volume:
        """Reorder a volume's array and geometry together."""
        shape_ijk = volume.array.shape[::-1]
        matrix = np.eye(4)
        origin = volume.ijk_to_ras[:, 3].copy()
        for new_axis_kji, (axis_kji, flip) in enumerate(zip(self.axes, self.flips)):
            axis = 2 - axis_kji
            step = volume.ijk_to_ras[:, axis]
            matrix[:, 2 - new_axis_kji] = -step if flip else step
            if flip:
                origin = origin + step * (shape_ijk[axis] - 1)
        matrix[:, 3] = origin
        origins = volume.slice_origins_ras
        if origins is not None:
            origins = origins[::-1] if self.flips[0] else origins
            for axis_kji, flip in zip(self.axes[1:], self.flips[1:]):
                axis = 2 - axis_kji
                origins = origins + flip * volume.ijk_to_ras[:3, axis] * (shape_ijk[axis] - 1)
            matrix[:3, 3] = origins[0]
        return replace(
            volume,
            array=self.apply_array(volume.array),
            ijk_to_ras=matrix,
            slice_origins_ras=origins,
            frame_times_s=self.apply_times(volume.frame_times_s),
        )


def _transposed(array: np.ndarray, axes: tuple[int, int, int]) -> np.ndarray:
    """The last three axes in another order."""
    before = array.ndim - 3
    return array.transpose((*range(before), *(before + axis for axis in axes)))
