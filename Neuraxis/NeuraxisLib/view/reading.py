"""A scan or a result folder from the disk, ready to be shown."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from NeuraxisLib.errors import InputError, NeuraxisError
from NeuraxisLib.files import is_image_file, read_volume
from NeuraxisLib.result import Result
from NeuraxisLib.result_folder import RESULT_FILE, read_result
from NeuraxisLib.run import task_options
from NeuraxisLib.task import Progress, Task, get_task
from NeuraxisLib.view.windows import is_ct
from NeuraxisLib.volume import Volume

#: So many images beside a result are looked at to find the one that it was made from.
_MOST_CANDIDATES = 30
_SAME_PLACE_MM = 0.01
#: The task that takes frames over time.
_FRAMES_TASK = "stroke"
NO_IMAGE = "The result does not hold its image; name it with --image, or open it here while this result is shown."


@dataclass
class OpenedCase:
    """What was read.

    Attributes:
        name: what the page calls it.
        volume: 3-D image, equal slice gaps; of frames over time their average; zeros where a result's image is missing.
        path: what a computation reads again; None if it has to be given the volume (unequal slice gaps), or cannot run.
        task: of the result, or the one that suits the image.
        result: on the grid of ``volume``; None for a scan.
        folder: the result folder.
        notes: sentences to show with it.
    """

    name: str
    volume: Volume
    path: Path | None
    task: str
    result: Result | None = None
    folder: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def has_image(self) -> bool:
        """Whether there is an image, so that a task can be run on it."""
        return self.path is not None or bool(np.any(self.volume.array))


def open_case(path: Path, image: Path | None = None, task: str = "") -> OpenedCase:
    """Read a scan, or a result folder with its image.

    Args:
        path: image file, DICOM folder, result folder, or what the reader of ``task`` takes.
        image: of a result folder; None looks for it beside the folder, by its grid.
        task: what the scan is for; empty finds out.

    Raises:
        NeuraxisError: cannot be read; ``image`` is not what the result was made from.
    """
    if (path / RESULT_FILE).is_file():
        return _open_result(path, image)
    if image is not None:
        raise InputError(f"'{path.name}' is no result folder, so it takes no further image; leave --image out.")
    volume, found = _read_image(path, task)
    usual = volume.regular()
    notes = list(volume.meta.get("warnings", ()))
    return OpenedCase(path.name, usual, path if volume.is_uniform else None, task or found, notes=notes)


def add_image(case: OpenedCase, image: Path) -> OpenedCase | None:
    """A result that is shown without its image, with the image; None if the image is another one's."""
    if case.result is None or case.folder is None or case.has_image:
        return None
    try:
        return _open_result(case.folder, image)
    except InputError:
        return None


def _open_result(folder: Path, image: Path | None) -> OpenedCase:
    grid = read_result(folder)
    notes, volume = [], None
    if image is None:
        image, volume = _image_beside(folder, grid)
        notes.append(f"The image is '{image.name}', found by its grid." if image else NO_IMAGE)
    else:
        volume, _ = _read_image(image, grid.task)
        if not _same_grid(volume, grid.source):
            raise InputError(f"The result in '{folder.name}' was not made from '{image.name}'; name its own image.")
    source = volume if volume is not None else _flat(grid.source)
    result = on_equal_gaps(replace(grid, source=source))
    return OpenedCase(
        folder.name, result.source, image if image and source.is_uniform else None, grid.task, result, folder, notes
    )


def facts_of(folder: Path) -> dict[str, Any]:
    """What a result folder says of its ``maps`` (name -> title, unit, ...), and its ``warnings``.

    Raises:
        InputError: there is no readable result.
    """
    try:
        document = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
        return {"maps": document["maps"], "warnings": document["warnings"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"The result in '{folder.name}' cannot be read; compute it again.") from error


def on_equal_gaps(result: Result) -> Result:
    """The result with image, labels and maps on equal slice gaps, as a scene holds them."""
    source = result.source
    if source.is_uniform:
        return result
    positions, regular = source.slice_positions_mm, source.regular()
    step = (positions[-1] - positions[0]) / (regular.slice_count - 1)
    return replace(
        result,
        source=regular,
        labels=None if result.labels is None else result.labels.regular(),
        maps={name: replace(one, volume=one.volume.regular()) for name, one in result.maps.items()},
        key_slices=[int(round((positions[k] - positions[0]) / step)) for k in result.key_slices],
    )


# -- images ---------------------------------------------------------------------------------------------------


def _read_image(path: Path, task: str) -> tuple[Volume, str]:
    """(3-D image, task that suits it): through the task's own reader if it has one."""
    if task:
        reader = get_task(task).reader(_main_input(get_task(task)))
        if reader is not None and not (path.is_file() and _is_three_dimensional(path)):
            return _flat(_read_by(reader, get_task(task), path)), task
    try:
        volume = read_volume(path)
    except InputError as error:
        if task:
            raise
        try:
            return _flat(_read_frames(path)), _FRAMES_TASK
        except NeuraxisError:
            raise error from None
    return volume, "hemorrhage" if is_ct(volume) else "discs"


def _read_frames(path: Path) -> Volume:
    """A time series: a file as it is, a folder as the task's own reader finds it."""
    if is_image_file(path):
        return read_volume(path, dimensions=4)
    task = get_task(_FRAMES_TASK)
    return _read_by(task.reader(_main_input(task)), task, path)


def _read_by(reader: Any, task: Task, path: Path) -> Volume:
    """What a task's reader found, as an image: its frames, or the first of its maps."""
    found = reader(path, task_options(task, {}), None, False, Progress())
    if isinstance(found, Volume):
        return found
    volume = getattr(found, "volume", None)
    return volume if volume is not None else next(iter(found.maps.values()))


def _main_input(task: Task) -> str:
    return next(iter(task.inputs))


def _is_three_dimensional(path: Path) -> bool:
    size = _size_of(path)
    return size is not None and len(size) == 3


def _flat(volume: Volume) -> Volume:
    """Frames over time as their average; numbers only."""
    array = volume.array
    if array.ndim == 4:
        still = array[0] if not array.any() else array.mean(axis=0, dtype=np.float32)
        volume = replace(volume, array=still, frame_times_s=None)
    if volume.array.dtype.kind == "f":
        volume = replace(volume, array=np.nan_to_num(volume.array))
    return volume


def _image_beside(folder: Path, result: Result) -> tuple[Path | None, Volume | None]:
    """The only image in the folder of a result folder that lies on its grid, if there is exactly one."""
    shape = result.source.array.shape[-3:]
    files = [path for path in sorted(folder.parent.iterdir()) if path.is_file() and is_image_file(path)]
    found = []
    for path in files[:_MOST_CANDIDATES]:
        size = _size_of(path)
        if size is None or tuple(size[2::-1]) != shape:
            continue
        try:
            volume = _flat(read_volume(path, dimensions=len(size)))
        except InputError:
            continue
        if _same_grid(volume, result.source):
            found.append((path, volume))
    return found[0] if len(found) == 1 else (None, None)


def _size_of(path: Path) -> tuple[int, ...] | None:
    """(columns, rows, slices, ...) as an image file's header says; None if it cannot be read."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return tuple(reader.GetSize())


def _same_grid(volume: Volume, grid: Volume) -> bool:
    same_size = volume.array.shape[-3:] == grid.array.shape[-3:]
    return same_size and bool(np.abs(volume.origins_ras - grid.origins_ras).max() < _SAME_PLACE_MM)
