"""The store: every case of a training set in one HDF5 file, indexed, and chunked for the patches that are read.

    store = Store("cases.h5")
    for name in store.of_split("train"):
        info = store.info(name)                                # shape, spacing, group ...: no array is touched
        image, truth, region = store.part(name, slices_kji)    # only the chunks that the patch meets are read

The index is one JSON text. A store is written by :mod:`Training.store_writer`, whole or not at all. Any number of
processes may read one store at once; a Store that travels to another process opens the file again there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import h5py
import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume

FORMAT, VERSION = "neuraxis-store", 1
#: Slice labels, where a scan says which slices bleed but not where.
UNKNOWN, CLEAN, BLEEDING = -1, 0, 1
#: Value of ``truth`` where nobody knows; losses and metrics leave such voxels out.
IGNORED = 255
_ARRAYS = ("image", "truth", "region")


@dataclass(frozen=True)
class StoredCase:
    """One case, with its arrays.

    Attributes:
        id: unique in the store.
        patient: who was scanned; only compared, to keep all scans of a patient in one split, and never printed.
        group: what tables are made by (kind of bleed, hospital); may be empty.
        split: ``"train"``, ``"val"``, ``"test"``, ``"fold0"`` ...; empty where not decided.
        image: the scan, stored grid and unit. Unit ``"HU"``, ``"grey"`` (8-bit picture: no HU, window baked in), or of
            several channels ``"maps"`` (each in the unit of its map) or ``"rgb"`` (8-bit colours).
        truth: uint8 (k, j, i), label values, :data:`IGNORED` where nobody knows; None where no outline was drawn.
        region: bool (k, j, i) where the structure may be (the brain); None where it was not computed.
        slice_label: int8 (K,) of BLEEDING, CLEAN, UNKNOWN; None where the truth says it all.
        flags: what a reader of results must know, such as ``"spacing unknown"``.
        provenance: where the case comes from (layout, series key, warnings of the reader); no name, id or path.
        channels: names of the image's first axis (c, k, j, i), such as ``("cbf", "tmax")``; empty for a plain image or
            a time series.
        scalars: numbers of the patient, such as ``{"nihss": 12.0}``, those that are known.
    """

    id: str
    patient: str
    group: str
    split: str
    image: Volume
    truth: np.ndarray | None = None
    region: np.ndarray | None = None
    slice_label: np.ndarray | None = None
    flags: tuple[str, ...] = ()
    provenance: dict = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    scalars: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseInfo:
    """What the index says of a case; made without reading an array.

    Attributes:
        id, patient, group, split, unit, flags, provenance, channels, scalars: see :class:`StoredCase`.
        shape_kji: of the scan, time frames and channels left out.
        spacing_mm: (column, row, slice).
        sheared, uniform: as of :class:`NeuraxisLib.volume.Volume`.
        truth_ml: label value -> volume in mL; None without a truth, empty where nothing is marked.
        truth_slices: label value -> slices k that hold it; None without a truth.
        has_region: whether :meth:`Store.part` gives a region.
        image_sha256, truth_sha256: of the voxel values and their shape, to find duplicates; the latter empty without a
            truth or where nothing is marked.
    """

    id: str
    patient: str
    group: str
    split: str
    unit: str
    shape_kji: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    sheared: bool
    uniform: bool
    truth_ml: dict[int, float] | None
    truth_slices: dict[int, list[int]] | None
    has_region: bool
    image_sha256: str
    truth_sha256: str
    flags: tuple[str, ...] = ()
    provenance: dict = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    scalars: dict[str, float] = field(default_factory=dict)

    @property
    def has_truth(self) -> bool:
        """Whether the structure was outlined; an outlined scan may be empty."""
        return self.truth_ml is not None

    def to_dict(self) -> dict:
        """For the JSON index."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> CaseInfo:
        """From the JSON index; entries of a newer version that are not known here are left out."""
        known = {entry.name: data[entry.name] for entry in fields(cls) if entry.name in data}
        for name in ("shape_kji", "spacing_mm", "flags", "channels"):
            known[name] = tuple(known.get(name, ()))  # stores of earlier versions name no channels
        for name in ("truth_ml", "truth_slices"):  # JSON has no whole-number keys
            if known[name] is not None:
                known[name] = {int(value): found for value, found in known[name].items()}
        return cls(**known)


class Store:
    """A store, opened for reading.

    Args:
        path: the ``.h5`` file.

    Raises:
        InputError: not there, not a store, damaged, or made by a newer version.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._process = -1
        head = self._read_index()
        try:
            self.provenance: dict = head["provenance"]
            self._infos = {entry["id"]: CaseInfo.from_dict(entry) for entry in head["cases"]}
            self._places = {entry["id"]: f"cases/{number:06d}" for number, entry in enumerate(head["cases"])}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._damaged() from None

    # -- the index ---------------------------------------------------------------------------------------------

    @property
    def ids(self) -> list[str]:
        """All cases, in the order in which they were added."""
        return list(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def __iter__(self) -> Iterator[CaseInfo]:
        return iter(self._infos.values())

    def info(self, name: str) -> CaseInfo:
        """What the index says of a case; InputError if the store does not hold it."""
        try:
            return self._infos[name]
        except KeyError:
            raise InputError(
                f"The store '{self.path.name}' holds no case '{name}'; choose one that it lists."
            ) from None

    @property
    def splits(self) -> dict[str, list[str]]:
        """Split -> its cases."""
        return self._grouped("split")

    @property
    def groups(self) -> dict[str, list[str]]:
        """Group -> its cases."""
        return self._grouped("group")

    def of_split(self, *names: str) -> list[str]:
        """The cases of one or several splits, in the store's order; InputError if a split has none."""
        splits = self.splits
        missing = [name for name in names if name not in splits]
        if missing:
            known = ", ".join(f"'{name}'" for name in splits if name)
            remedy = f"its splits are {known}" if known else "it has none at all, prepare it again with --split"
            raise InputError(f"The store '{self.path.name}' has no split '{missing[0]}'; {remedy}.")
        return [info.id for info in self if info.split in names]

    def _grouped(self, attribute: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for info in self:
            found.setdefault(getattr(info, attribute), []).append(info.id)
        return found

    # -- arrays ------------------------------------------------------------------------------------------------

    def case(self, name: str) -> StoredCase:
        """A case with all its arrays."""
        info, place = self.info(name), self.place(name)
        origins = place.attrs.get("slice_origins_ras")
        arrays = {word: self._read(place, word, ...) for word in (*_ARRAYS, "slice_label", "frame_times_s")}
        image = Volume(
            array=arrays["image"],
            ijk_to_ras=np.asarray(place.attrs["ijk_to_ras"]),
            unit=info.unit,
            slice_origins_ras=origins,
            frame_times_s=arrays["frame_times_s"],
        )
        region = None if arrays["region"] is None else arrays["region"].astype(bool)
        return StoredCase(
            info.id, info.patient, info.group, info.split, image, arrays["truth"], region, arrays["slice_label"],
            info.flags, info.provenance, info.channels, info.scalars,
        )  # fmt: skip

    def geometry(self, name: str) -> Volume:
        """The case's grid without its voxels (an array of zeros that takes no memory): positions, voxel volumes."""
        place, shape = self.place(name), self.info(name).shape_kji
        origins = place.attrs.get("slice_origins_ras")
        empty = np.broadcast_to(np.uint8(0), shape)
        return Volume(empty, np.asarray(place.attrs["ijk_to_ras"]), slice_origins_ras=origins)

    def part(
        self, name: str, slices_kji: tuple[slice, slice, slice], outside: float | None = None
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """A box of a case, reading only the chunks that it meets.

        Args:
            name: the case.
            slices_kji: start and stop along k, j and i, step 1. A box may reach beyond the scan: the result always has
                the size that was asked for.
            outside: value of the image beyond the scan; None takes the scan's own least value (air in a CT). Truth and
                region are 0 there.

        Returns:
            (image, truth or None, region or None); image (k, j, i), or (t, k, j, i) of a time series or of channels,
            in its stored type; truth uint8; region bool.
        """
        place, info = self.place(name), self.info(name)
        found = []
        for word, held in zip(_ARRAYS, (True, info.has_truth, info.has_region)):
            if not held:
                found.append(None)
                continue
            array = self._box(place, word, info.shape_kji, slices_kji, outside if word == "image" else None)
            found.append(array.astype(bool) if word == "region" else array)
        return found[0], found[1], found[2]

    def foreground_kji(self, name: str, value: int | None = None) -> np.ndarray:
        """(n, 3) indices (k, j, i) of the voxels marked with ``value``, or with any value; empty without a truth.

        Only chunks that hold a mark are on the disk, so this is quick; keep the result where it is needed often.
        """
        truth = self._read(self.place(name), "truth", ...)
        if truth is None:
            return np.zeros((0, 3), int)
        marked = (truth > 0) & (truth != IGNORED) if value is None else truth == value
        return np.argwhere(marked)

    def _box(self, place: h5py.Group, word: str, shape, slices_kji, fill) -> np.ndarray:
        inside = tuple(slice(max(s.start, 0), max(min(s.stop, n), 0)) for s, n in zip(slices_kji, shape))
        if all(s.start >= 0 and s.stop <= n for s, n in zip(slices_kji, shape)):
            return self._read(place, word, (..., *inside))
        data = place[word]
        fill = data.fillvalue if fill is None else fill
        array = np.full((*data.shape[:-3], *(s.stop - s.start for s in slices_kji)), fill, data.dtype)
        if all(s.stop > s.start for s in inside):
            target = tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(inside, slices_kji))
            array[(..., *target)] = self._read(place, word, (..., *inside))
        return array

    def _read(self, place: h5py.Group, word: str, where) -> np.ndarray | None:
        try:
            return place[word][where] if word in place else None
        except (OSError, KeyError, RuntimeError, ValueError, TypeError):  # a wrong check sum, or the file was cut short
            raise self._damaged() from None

    # -- the file ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_file": None, "_process": -1}

    def place(self, name: str) -> h5py.Group:
        """The case's group in the open file, for copying it as it lies on the disk."""
        self.info(name)
        try:
            return self._opened()[self._places[name]]
        except (OSError, KeyError, RuntimeError):
            raise self._damaged() from None

    def _opened(self) -> h5py.File:
        """The open file; a process that was forked from the one that opened it opens its own."""
        if self._file is None or self._process != os.getpid():
            # Readers never wait for each other, and network disks that know no locks can be read. Nothing reads a chunk
            # twice, so that none is kept.
            self._file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=0)
            self._process = os.getpid()
        return self._file

    def _read_index(self) -> dict:
        if not self.path.is_file():
            raise InputError(f"The store '{self.path.name}' was not found; check the name or make it with prepare.")
        if not h5py.is_hdf5(self.path):
            raise InputError(f"'{self.path.name}' is not a store of cases; make one with prepare.")
        try:
            file = self._opened()
            kind, version = file.attrs.get("format", ""), int(file.attrs.get("version", 0))
            kind = kind.decode() if isinstance(kind, bytes) else kind  # a text in stores of earlier versions
            if kind == FORMAT and version <= VERSION:
                return json.loads(file["index"][()].tobytes().decode("utf-8"))
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, RecursionError):  # RuntimeError is HDF5's
            raise self._damaged() from None
        if kind != FORMAT:
            raise InputError(f"'{self.path.name}' is not a store of cases; make one with prepare.")
        raise InputError(f"The store '{self.path.name}' was made by a newer version; update Neuraxis to read it.")

    def _damaged(self) -> InputError:
        return InputError(f"The store '{self.path.name}' is damaged or cut short; make it again with prepare.")
