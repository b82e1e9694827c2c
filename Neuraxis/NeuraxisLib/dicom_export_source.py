"""The DICOM series that a result was computed from, and the result on exactly its slices.

Everything that is written as DICOM lies where the source images lie: slice positions are taken from their headers, not
from the result, so that tilted, unevenly spaced and oblique series stay as they are. A result whose axes were stored in
another order (NIfTI converters turn rows and slices round) is taken back to the order of the series first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from NeuraxisLib.block_means import is_same_image
from NeuraxisLib.dicom_headers import SliceHeader, is_dicom_file, read_headers, scan_folder
from NeuraxisLib.dicom_pixels import read_pixels
from NeuraxisLib.dicom_series import Series, group_series
from NeuraxisLib.dicom_source import images_of
from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.files import is_image_file
from NeuraxisLib.result import Result, ScalarMap
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import AxisOrder, Volume

#: How far, in parts of the smallest voxel side, a slice of the result may lie from the image that it came from.
_SAME_PLACE = 0.2
#: Relative difference of pixel spacings that is still rounding.
_SAME_SPACING = 1e-3
#: What the provenance of a result tells whose image is none that was read: a mean over time, one of several maps.
_MADE = ("acquisition", "maps")
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SourceSeries:
    """A series and how a result lies on it.

    Attributes:
        headers: one per slice of the result, in the result's order once its axes are those of the series.
        images: their data sets without pixels: one per slice, or the one multi-frame file.
        order: takes the result's arrays to the order of axes of the series.
    """

    headers: list[SliceHeader]
    images: list[Dataset]
    order: AxisOrder

    def place(self, result: Result) -> Result:
        """The result on the grid of the series: same voxels, positions as the headers say."""
        return replace(
            result,
            source=self._placed(result.source),
            labels=None if result.labels is None else self._placed(result.labels),
            maps={name: self._placed_map(scalar_map) for name, scalar_map in result.maps.items()},
            key_slices=result.key_slices if self.order.axes[0] == 0 else [],
        )

    def with_pixels(self, result: Result, progress: Progress | None = None) -> Result:
        """A placed result with the images of the series as its source.

        Raises:
            InputError: the pixels cannot be decoded.
        """
        array, _ = read_pixels(self.headers, progress or Progress(), "The source series", mixed_scaling=True)
        return replace(result, source=result.source.like(array, result.source.unit))

    def _placed(self, volume: Volume) -> Volume:
        matrix, origins = _grid(self.headers)
        array = np.ascontiguousarray(self.order.apply_array(volume.array))
        return Volume(array, matrix, volume.unit, origins, meta=volume.meta)

    def _placed_map(self, scalar_map: ScalarMap) -> ScalarMap:
        return replace(scalar_map, volume=self._placed(scalar_map.volume))


#: A folder, or one DICOM file, which stands for its folder; or the files of the series.
Place = str | os.PathLike | Sequence[str]


def find_source(
    place: Place | None, result: Result, progress: Progress | None = None, means: Sequence[float] | None = None
) -> SourceSeries:
    """The series that a result was computed from.

    Args:
        place: where to look, with subfolders; None if unknown.
        result: as read from its folder.
        progress: told how far reading is; may cancel.

    Raises:
        InputError: no place, no DICOM images there, or a series in several multi-frame files.
        GeometryError: no series whose slices are those of the result, or one with another identity.
    """
    if place is None:
        raise InputError(
            "DICOM files must refer to the images that they were made from; name the DICOM folder of the source series."
        )
    found, name = _series_at(place, progress or Progress())
    fits = [(entry, fit) for entry in found if (fit := _fit(entry, result.source)) is not None]
    if not fits:
        raise GeometryError(
            f"No series in '{name}' has the slices of the result (place, size and spacing differ); choose the "
            "DICOM folder that it was computed from."
        )
    is_read = not any(made in result.provenance for made in _MADE) and isinstance(place, (str, os.PathLike))
    known = means if is_read else None
    chosen, (headers, order) = _of_same_identity(fits, result, name, known)
    if chosen.headers[0].frames > 1 and len({header.path for header in headers}) > 1:
        raise InputError(
            f"The series in '{name}' comes in several multi-frame files, to which DICOM files cannot refer as "
            "one; export it as one file or as single slices."
        )
    return SourceSeries(headers, images_of(headers), order)


def _series_at(place: Place, progress: Progress) -> tuple[list[Series], str]:
    """The series at a place, and what messages call it."""
    if not isinstance(place, (str, os.PathLike)):
        paths = [Path(path) for path in place]
        missing = [path for path in paths if not path.is_file()]
        if missing or not paths:
            raise InputError("Files of the source series are missing from the DICOM database; import the series again.")
        headers = [header for path in paths for header in read_headers(path)]
        return group_series(headers), paths[0].parent.name
    path = Path(place)
    if is_image_file(path) or (path.is_file() and not is_dicom_file(path)):
        raise InputError(
            f"'{path.name}' is no DICOM series, to which DICOM files must refer; name the DICOM folder that it was "
            "converted from."
        )
    if not path.exists():
        raise InputError(f"'{path.name}' was not found; check the name and the folder.")
    folder = path if path.is_dir() else path.parent
    return group_series(scan_folder(folder, progress).headers), folder.name


_Fit = tuple[list[SliceHeader], AxisOrder]


def _of_same_identity(
    fits: list[tuple[Series, _Fit]], result: Result, name: str, means: Sequence[float] | None
) -> tuple[Series, _Fit]:
    """The fitting series with the key that the result remembers, or else with its grey values.

    A result of an acquisition over time remembers the key of the acquisition, which no single time point has; it gets
    the first of its time points that fits.
    """
    key = None if "acquisition" in result.provenance else result.source.meta.get("series_key")
    same = [entry for entry in fits if entry[0].info.key == key]
    if key is None and means is not None:
        same = [entry for entry in fits if _has_means(*entry[1], means)][:1]
    elif key is None:
        same = fits
    if same:
        return same[0]
    if key is None:
        raise GeometryError(
            f"The series in '{name}' lies where the result does but shows another image (its grey values differ); "
            "choose the series that the result was computed from."
        )
    raise GeometryError(
        f"The series in '{name}' lies where the result does but is another one (its UIDs differ); choose the series "
        "that the result was computed from."
    )


def _has_means(headers: list[SliceHeader], order: AxisOrder, means: Sequence[float]) -> bool:
    """Whether the pixels of a series have the block means of a result's image."""
    array, _ = read_pixels(headers, Progress(), "The source series", mixed_scaling=True)
    return is_same_image(means, order.undo_array(array))


# -- geometry -------------------------------------------------------------------------------------------------


def _fit(series: Series, volume: Volume) -> _Fit | None:
    """For every slice of the volume, in the order of axes of the series, its image; None if one has none."""
    headers = [header for header in series.headers if header.position is not None and header.orientation is not None]
    if not headers or series.info.excluded or headers[0].pixel_spacing is None:
        return None
    order = _axis_order(headers[0], volume)
    if order is None:
        return None
    turned = order.apply(volume)
    first = headers[0]
    if turned.array.shape[-2:] != (first.rows, first.columns):
        return None
    row, column = _steps_ras(first)
    errors = (np.abs(turned.column_step_ras - row) * first.columns, np.abs(turned.row_step_ras - column) * first.rows)
    near_mm = _SAME_PLACE * min(turned.spacing_mm)
    if max(error.max() for error in errors) > max(near_mm, _SAME_SPACING * first.columns * np.linalg.norm(row)):
        return None
    places = np.array([header.position for header in headers]) * _LPS_TO_RAS
    distances = np.linalg.norm(turned.origins_ras[:, None] - places[None], axis=2)
    nearest = distances.argmin(axis=1)
    if distances.min(axis=1).max() > near_mm or len(set(nearest.tolist())) < len(nearest):
        return None
    return [headers[index] for index in nearest], order


def _axis_order(header: SliceHeader, volume: Volume) -> AxisOrder | None:
    """The order that makes i run along the rows of an image, j along its columns and k across it, or None."""
    row, column = _steps_ras(header)
    wanted = [row / np.linalg.norm(row), column / np.linalg.norm(column)]
    wanted.append(np.cross(*wanted))
    steps = volume.ijk_to_ras[:3, :3] / np.linalg.norm(volume.ijk_to_ras[:3, :3], axis=0)
    along = np.array(wanted) @ steps  # [axis of the series, axis of the volume], both i, j, k
    choice = np.abs(along).argmax(axis=1)
    if len(set(choice.tolist())) < 3 or (volume.slice_origins_ras is not None and choice[2] != 2):
        return None
    # k may count either way: slices find their images by place, and nothing is turned round without need
    flips = (False, *(bool(along[axis, choice[axis]] < 0) for axis in (1, 0)))
    return AxisOrder(axes=tuple(2 - int(choice[axis]) for axis in (2, 1, 0)), flips=flips)


def _steps_ras(header: SliceHeader) -> tuple[np.ndarray, np.ndarray]:
    """RAS mm from one column (i) to the next and from one row (j) to the next."""
    between_rows, between_columns = header.pixel_spacing
    row, column = np.array(header.orientation).reshape(2, 3) * _LPS_TO_RAS
    return row * between_columns, column * between_rows


def _grid(headers: Sequence[SliceHeader]) -> tuple[np.ndarray, np.ndarray]:
    """IJK-to-RAS matrix (the mean fit) and the exact RAS origin of every slice."""
    origins = np.array([header.position for header in headers]) * _LPS_TO_RAS
    row, column = _steps_ras(headers[0])
    step = (origins[-1] - origins[0]) / max(len(origins) - 1, 1)
    if len(origins) == 1:
        step = np.cross(row, column) / np.linalg.norm(np.cross(row, column)) * (headers[0].thickness or 1.0)
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([row, column, step, origins[0]])
    return matrix, origins
