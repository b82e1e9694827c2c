"""Writing a store of cases (see :mod:`Training.store`), whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import GeometryError, InputError, check_choice
from Training.store import FORMAT, IGNORED, VERSION, CaseInfo, Store, StoredCase

#: Voxels (k, j, i) per chunk: patches and stacks of a few slices both meet few of them, and each fits a core's cache.
CHUNK_KJI = (4, 64, 64)
#: Largest chunk in bytes; chunks of time series hold fewer voxels of more frames.
_LARGEST_CHUNK = 1 << 19
#: The first is the default.
COMPRESSIONS = ("none", "lzf", "gzip")


class StoreWriter:
    """Writes a store; a context manager. The file appears under its name only when the block ends without an error.

    Args:
        path: the ``.h5`` file; an existing one is replaced when the new one is complete.
        provenance: how the store came to be (layout, options, versions); no name, id or path.
        compression: ``"none"`` (quickest to read), ``"lzf"`` (a third of the size, patches take four times as long),
            ``"gzip"`` (a little smaller and slower still).
        chunk_kji: voxels per chunk.

    Raises:
        OutputError: the disk is full, the folder is missing or may not be written to.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        provenance: dict | None = None,
        compression: str = COMPRESSIONS[0],
        chunk_kji: tuple[int, int, int] = CHUNK_KJI,
    ):
        check_choice("compression", compression, COMPRESSIONS)
        self.path, self.chunk_kji = Path(path), chunk_kji
        self.provenance = dict(provenance or {})
        packed = {"lzf": {"compression": "lzf"}, "gzip": {"compression": "gzip", "compression_opts": 1}, "none": {}}
        self._filters = packed[compression] | {"shuffle": compression != "none", "fletcher32": True}
        self._infos: dict[str, CaseInfo] = {}
        self._file: h5py.File | None = None
        self._block = self._writing()

    def __enter__(self) -> StoreWriter:
        self._block.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._block.__exit__(kind, error, trace)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with atomic_write(self.path) as temporary:
            try:
                with h5py.File(temporary, "w", libver="latest") as self._file:  # check sums over headers, too
                    yield
                    self._finish()
            except RuntimeError as error:  # h5py's word for a file that cannot be closed, after a write that failed
                cause = error.__context__
                raise cause if isinstance(cause, OSError) else OSError(errno.EIO, "the disk failed") from error

    def add(self, case: StoredCase) -> CaseInfo:
        """Add a case; returns its entry of the index.

        Raises:
            InputError: the id is empty or taken, or a truth holds values beyond 0..255.
            GeometryError: truth, region, slice labels or channels do not have the image's shape.
        """
        check_case(case)
        if case.id in self._infos:
            raise InputError(f"Two cases are called '{case.id}'; give every case a name of its own.")
        place = self._file.create_group(self._next_place())
        image = compact(case.image.array)
        self._write(place, "image", image, image.min())
        if case.truth is not None:
            self._write(place, "truth", case.truth.astype(np.uint8), 0)
        if case.region is not None:
            self._write(place, "region", case.region.astype(np.uint8), 0)
        if case.slice_label is not None:
            place["slice_label"] = case.slice_label.astype(np.int8)
        if case.image.frame_times_s is not None:
            place["frame_times_s"] = np.asarray(case.image.frame_times_s, float)
        place.attrs["ijk_to_ras"] = case.image.ijk_to_ras
        if case.image.slice_origins_ras is not None:
            place.attrs["slice_origins_ras"] = case.image.slice_origins_ras
        info = describe(case)
        self._infos[case.id] = info
        return info

    def add_from(self, path: str | os.PathLike, changes: dict[str, dict] | None = None) -> None:
        """Copy all cases of another store as they lie on its disk, without unpacking them.

        Args:
            path: the other store.
            changes: case -> fields of its :class:`CaseInfo` to set, such as the split.
        """
        with Store(path) as other:
            for info in other:
                if info.id in self._infos:
                    raise InputError(f"Two cases are called '{info.id}'; give every case a name of its own.")
                self._file.copy(other.place(info.id), self._next_place())
                self._infos[info.id] = replace(info, **(changes or {}).get(info.id, {}))

    def _next_place(self) -> str:
        return f"cases/{len(self._infos):06d}"

    def _write(self, place: h5py.Group, word: str, array: np.ndarray, background: float) -> None:
        """Write an array, leaving out chunks that hold nothing but background: they cost no space and no reading."""
        chunk = _chunk_of(array, self.chunk_kji)
        data = place.create_dataset(word, array.shape, array.dtype, chunks=chunk, fillvalue=background, **self._filters)
        for start in product(*(range(0, size, step) for size, step in zip(array.shape, chunk))):
            box = tuple(slice(at, min(at + step, size)) for at, step, size in zip(start, chunk, array.shape))
            if (array[box] != background).any():
                data[box] = array[box]

    def _finish(self) -> None:
        index = {"provenance": self.provenance, "cases": [info.to_dict() for info in self._infos.values()]}
        text = json.dumps(index, ensure_ascii=False).encode("utf-8")
        self._file.create_dataset("index", data=np.frombuffer(text, np.uint8), fletcher32=True)
        # A text of fixed length: HDF5 has no check sum over others, and may never return from a damaged one.
        self._file.attrs["format"], self._file.attrs["version"] = np.bytes_(FORMAT), VERSION
        self._file.flush()


def _chunk_of(array: np.ndarray, chunk_kji: tuple[int, int, int]) -> tuple[int, ...]:
    chunk, wanted = [min(step, size) for step, size in zip(chunk_kji, array.shape[-3:])], int(np.prod(chunk_kji))
    while np.prod(chunk) < wanted and chunk[1:] != list(array.shape[-2:]):  # few slices: more of each
        chunk[1:] = (min(2 * step, size) for step, size in zip(chunk[1:], array.shape[-2:]))
    frames = array.shape[:-3]
    while np.prod([*frames, *chunk]) * array.itemsize > _LARGEST_CHUNK and max(chunk) > 4:
        largest = int(np.argmax(chunk))
        chunk[largest] = -(-chunk[largest] // 2)
    return (*frames, *chunk)


def compact(array: np.ndarray) -> np.ndarray:
    """The array in the smallest of uint8, int16 and float32 that holds its values; doubles are rounded to floats."""
    if array.dtype.kind in "bu" and array.itemsize == 1:
        return array.astype(np.uint8)
    whole = array.dtype.kind in "iu" or bool((array == np.rint(array)).all())
    if whole and array.min() >= -32768 and array.max() <= 32767:
        return array.astype(np.int16)
    return array.astype(np.float32)


def check_case(case: StoredCase) -> None:
    """Raise InputError or GeometryError if a case contradicts itself."""
    shape = case.image.array.shape[-3:]
    if not case.id:
        raise InputError("A case has no name; give every case one.")
    for word, array in (("truth", case.truth), ("region", case.region)):
        if array is not None and array.shape != shape:
            raise GeometryError(
                f"The {word} of '{case.id}' has {_size(array.shape)} voxels where the image has {_size(shape)}; "
                "bring both onto one grid."
            )
    if case.channels and case.image.array.shape[:-3] != (len(case.channels),):
        raise GeometryError(
            f"'{case.id}' names {len(case.channels)} channels but its image has "
            f"{case.image.array.shape[0] if case.image.array.ndim == 4 else 'none'}; correct one of them."
        )
    if case.slice_label is not None and case.slice_label.shape != shape[:1]:
        raise GeometryError(
            f"'{case.id}' has {shape[0]} slices but {len(case.slice_label)} slice labels; correct them."
        )
    truth = case.truth
    if (
        truth is not None
        and truth.dtype != np.uint8
        and ((truth < 0) | (truth > 255) | (truth != np.rint(truth))).any()
    ):
        raise InputError(f"The truth of '{case.id}' holds values that are no labels (0 to 255); correct the mask.")


def describe(case: StoredCase) -> CaseInfo:
    """The entry of the index of a case."""
    shape = case.image.array.shape[-3:]
    spacing = tuple(round(float(value), 6) for value in case.image.spacing_mm)
    volumes, slices = None, None
    if case.truth is not None:
        counts = {value: (case.truth == value).sum(axis=(1, 2)) for value in _values(case.truth)}
        volumes = {value: round(float(count @ case.image.voxel_volumes_ml), 6) for value, count in counts.items()}
        slices = {value: np.flatnonzero(count).tolist() for value, count in counts.items()}
    return CaseInfo(
        case.id, case.patient, case.group, case.split, case.image.unit, shape, spacing, bool(case.image.is_sheared),
        case.image.is_uniform, volumes, slices, case.region is not None, content_hash(case.image.array),
        content_hash(case.truth) if volumes else "", tuple(case.flags), dict(case.provenance), tuple(case.channels),
        {name: float(value) for name, value in case.scalars.items()},
    )  # fmt: skip


def _values(truth: np.ndarray) -> list[int]:
    counts = np.bincount(truth.astype(np.uint8).ravel(), minlength=256)
    return [int(value) for value in np.flatnonzero(counts) if value not in (0, IGNORED)]


def content_hash(array: np.ndarray) -> str:
    """SHA-256 of an array's shape and values, the same whatever type holds the values."""
    array = np.ascontiguousarray(compact(array))
    array = array.astype("<i2") if array.dtype.kind in "iu" else array.astype("<f4")
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in reversed(shape))
