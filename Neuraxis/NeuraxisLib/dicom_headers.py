"""First look at a folder of DICOM files: one small record per image, nothing of the patient kept, no pixels read."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from NeuraxisLib.dicom_elements import Convert, Elements, converter, read_elements
from NeuraxisLib.errors import InputError
from NeuraxisLib.task import Progress

_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom", ".dic")
#: Names of files that systems and viewers leave in folders.
_CLUTTER = {"thumbs.db", "desktop.ini"}
#: Objects with pixels that are not images of the patient.
_NOT_IMAGES = {"SEG", "RTDOSE", "RTIMAGE", "PR", "SR", "KO", "REG", "DOC"}
#: JPEG baseline and extended, JPEG-LS near-lossless: never without loss.
_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")
_DIRECTORY = "1.2.840.10008.1.3.10"
_PIXEL_GROUP = 0x7FE0
#: What may tell apart two images at one place: time points, echoes, energies, b-values, magnitude and phase.
_PHASE_KEYWORDS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber", "FrameAcquisitionNumber",
    "AcquisitionDateTime", "AcquisitionTime", "EchoNumbers", "EchoTime", "TriggerTime", "DiffusionBValue",
    "NominalPercentageOfCardiacPhase", "KVP", "ImageType", "StackID", "ContentTime",
)  # fmt: skip


@dataclass(frozen=True)
class SliceHeader:
    """What reading and sorting need to know of one image (one frame of a multi-frame file).

    Lengths are mm, coordinates DICOM's LPS. A value that the file does not give is None.
    """

    path: Path
    series_uid: str
    study_uid: str
    sop_uid: str
    modality: str
    image_type: tuple[str, ...]
    description: str
    kernel: str
    rows: int
    columns: int
    pixel_spacing: tuple[float, float] | None  # (between rows, between columns)
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    thickness: float | None
    slope: float | None
    intercept: float | None
    padding: int | None
    bits_allocated: int
    bits_stored: int
    signed: bool
    samples: int
    transfer_syntax: str
    lossy: bool
    pixel_offset: int  # where the pixel element starts in the file
    file_size: int
    instance: int | None
    series_number: int | None = None
    tilt_deg: float | None = None
    contrast: bool = False
    detector_spacing: tuple[float, float] | None = None  # ImagerPixelSpacing, which CT and MR need not have
    patient: str = field(default="", repr=False)  # digest of the patient's id, to tell patients apart and no more
    frame: int = 0
    frames: int = 1
    plain_frames: bool = False  # several frames that do not say where they lie
    facts: dict[str, str] = field(default_factory=dict, compare=False)  # what else the scan was asked for

    @property
    def name(self) -> str:
        """File name for messages; the folder may name the patient."""
        return self.path.name if self.frames == 1 else f"{self.path.name}, frame {self.frame + 1}"

    @property
    def is_localizer(self) -> bool:
        """Whether the image is a scout view."""
        return any("LOCALIZER" in word or "SCOUT" in word for word in self.image_type)


class _NotDicom(Exception):
    """The file does not begin like a DICOM file."""


@dataclass
class Scan:
    """What a folder holds: image headers, how many files of what other kind were left out, and damaged files."""

    headers: list[SliceHeader]
    skipped: Counter
    damaged: list[Path]


def scan_folder(folder: Path, progress: Progress, keywords: tuple[str, ...] = ()) -> Scan:
    """Read the headers of every DICOM image under a folder.

    Args:
        folder: searched with its subfolders.
        progress: told how far reading is; may cancel.
        keywords: attributes to keep as text in ``SliceHeader.facts``, where an image (or a frame) has a value.

    Raises:
        InputError: no DICOM images there, not even damaged ones, or files that may not be read.
    """
    scan, foreign, paths, convert = Scan([], Counter(), []), [], list(_files(folder)), converter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd characters in names that are not kept here
        for index, path in enumerate(paths):
            if index % 16 == 0:
                progress(index / len(paths), "Reading DICOM headers")
            try:
                scan.headers.extend(_read_file(path, scan.skipped, keywords, convert))
            except _NotDicom:
                foreign.append(path)
            except PermissionError as error:
                raise InputError(f"'{path.name}' may not be read by this account; ask for permission.") from error
            except Exception:  # a damaged header may fail in any way inside the parser; it is named, never dropped
                scan.damaged.append(path)
    _judge_foreign(foreign, scan)
    if not scan.headers and not scan.damaged:
        raise InputError(
            f"'{folder.name}' holds no DICOM images ({skipped_text(scan.skipped) or 'no files at all'}); "
            "choose an image file or the folder of a series."
        )
    return scan


def read_headers(path: Path) -> list[SliceHeader]:
    """The headers of the images (frames) in one DICOM file.

    Raises:
        InputError: not DICOM, damaged, or no images.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            headers = _read_file(path, Counter(), (), converter())
        except Exception as error:  # as in scan_folder
            raise InputError(f"'{path.name}' cannot be read as DICOM; send or export it again.") from error
    if not headers:
        raise InputError(f"'{path.name}' holds no images; choose another file.")
    return headers


def headers_of(dataset: Dataset, path: Path) -> list[SliceHeader]:
    """The headers of an image whose data set came without its pixels, from a server; ``path`` names it."""
    return _headers(dataset, path, "", 0, 0, ()) if "Rows" in dataset else []


def skipped_text(skipped: Counter) -> str:
    """How many files of what kind were left out, in words."""
    return ", ".join(f"{count} x {kind}" for kind, count in skipped.items())


def _files(folder: Path) -> Iterator[Path]:
    """Every file under a folder, sorted; linked folders are followed, but none is entered twice."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            if not name.startswith(".") and name.lower() not in _CLUTTER and os.path.isfile(os.path.join(parent, name)):
                yield Path(parent, name)


def _judge_foreign(foreign: list[Path], scan: Scan) -> None:
    """Tell damaged images from files of other kinds: same suffix as the images, and empty or about as large."""
    suffixes = {_suffix(header.path) for header in scan.headers}
    usual = median([header.file_size for header in scan.headers]) if scan.headers else 0
    for path in foreign:
        size = path.stat().st_size
        alike = _suffix(path) in suffixes and (size == 0 or size >= usual / 4)
        if alike or _suffix(path) in _DICOM_SUFFIXES:
            scan.damaged.append(path)
        else:
            scan.skipped["file that is not DICOM"] += 1


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix  # names like 1.2.840.113 have none


def is_dicom_file(path: Path) -> bool:
    """Whether a file begins like DICOM, with or without the preamble."""
    with open(path, "rb") as file:
        return _looks_like_dicom(file.read(132))


def _looks_like_dicom(start: bytes) -> bool:
    """The DICM mark, or a bare data set that begins with a plausible element of group 2 or 8."""
    if start[128:132] == b"DICM":
        return True
    if len(start) < 132:
        return False
    group, element, length = struct.unpack_from("<HHI", start)
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return group in (0x0002, 0x0008) and element <= 0x0018 and (explicit or length <= 256)


def _read_file(path: Path, skipped: Counter, keywords: tuple[str, ...], convert: Convert) -> list[SliceHeader]:
    """The headers of the file's images; a file that holds no image is counted and gives none."""
    elements = read_elements(path, convert)
    if elements is None:
        dataset, meta, offset, whole = _parse_file(path)
    else:
        dataset, meta, offset, whole = elements, elements, elements.pixels_at, True
    sop_class = str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    if not sop_class:
        raise ValueError("no SOP class")
    if sop_class == _DIRECTORY:
        skipped["DICOM directory file"] += 1
        return []
    modality = str(dataset.get("Modality", ""))
    is_image = "Rows" in dataset or "Image Storage" in UID(sop_class).name
    if modality in _NOT_IMAGES or not is_image:
        skipped["report or other object"] += 1
        return []
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if not whole and syntax != DeflatedExplicitVRLittleEndian:
        raise ValueError("cut off before the pixels")
    return _headers(dataset, path, syntax, offset, os.stat(path).st_size, keywords)


def _parse_file(path: Path) -> tuple[Dataset, Dataset, int, bool]:
    """The data set without its pixels, that of group 2, where pydicom stopped in the file, and whether at pixels."""
    with open(path, "rb") as file:
        if not _looks_like_dicom(file.read(132)):
            raise _NotDicom
        file.seek(0)
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        offset, tag = file.tell(), file.read(4)
    group = struct.unpack("<H", tag[:2])[0] if len(tag) == 4 else 0
    return dataset, getattr(dataset, "file_meta", Dataset()), offset, _PIXEL_GROUP in (group, _swapped(group))


def _swapped(value: int) -> int:
    return (value & 0xFF) << 8 | value >> 8


def _headers(
    dataset: Dataset | Elements, path: Path, syntax: str, offset: int, size: int, keywords: tuple[str, ...]
) -> list[SliceHeader]:
    common = {
        "path": path,
        "series_uid": str(_needed(dataset, "SeriesInstanceUID")),
        "study_uid": str(dataset.get("StudyInstanceUID", "")),
        "sop_uid": str(dataset.get("SOPInstanceUID", "")),
        "modality": str(dataset.get("Modality", "")),
        "description": str(dataset.get("SeriesDescription") or "").strip(),
        "rows": int(_needed(dataset, "Rows")),
        "columns": int(_needed(dataset, "Columns")),
        "bits_allocated": int(_needed(dataset, "BitsAllocated")),
        "bits_stored": int(dataset.get("BitsStored", dataset.get("BitsAllocated"))),
        "signed": int(dataset.get("PixelRepresentation", 0)) == 1,
        "samples": int(dataset.get("SamplesPerPixel", 1)),
        "padding": _integer(dataset, "PixelPaddingValue"),
        "transfer_syntax": syntax,
        "lossy": str(dataset.get("LossyImageCompression", "00")) == "01" or syntax in _LOSSY_SYNTAXES,
        "pixel_offset": offset,
        "file_size": size,
        "instance": _integer(dataset, "InstanceNumber"),
        "series_number": _integer(dataset, "SeriesNumber"),
        "tilt_deg": _number([dataset], "GantryDetectorTilt"),
        "contrast": bool(str(dataset.get("ContrastBolusAgent") or "").strip()),
        "detector_spacing": _numbers([dataset], "ImagerPixelSpacing", 2),
        "patient": hashlib.sha256(str(dataset.get("PatientID") or "").strip().encode()).hexdigest(),
    }
    frames = int(dataset.get("NumberOfFrames") or 1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        own = {**_place([dataset]), "facts": _facts([dataset], keywords)}
        return [SliceHeader(**common, **own, plain_frames=frames > 1)]
    if len(groups) != frames:
        raise ValueError("frame count and frame descriptions differ")
    sources = _frame_sources(dataset)
    return [
        SliceHeader(**common, **_place(one), frame=frame, frames=frames, facts=_facts(one, keywords))
        for frame, one in enumerate(sources)
    ]


def _frame_sources(dataset: Dataset) -> list[list[Dataset]]:
    """For every frame of an enhanced file, the data sets that may hold a value, the most specific first."""
    shared = [macro for group in dataset.get("SharedFunctionalGroupsSequence") or [] for macro in _macros(group)]
    return [[*_macros(group), *shared, dataset] for group in dataset.PerFrameFunctionalGroupsSequence]


def read_phase(header: SliceHeader) -> dict[str, str]:
    """What may tell this image from another at its place (time point, echo, energy ...): keyword -> value.

    Read from the file again, because hardly any series needs it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = read_elements(header.path, converter()) or _parse_file(header.path)[0]
        enhanced = "PerFrameFunctionalGroupsSequence" in dataset
        sources = _frame_sources(dataset)[header.frame] if enhanced else [dataset]
        return _facts(sources, _PHASE_KEYWORDS)


def _macros(group: Dataset) -> list[Dataset]:
    """The single items of all functional groups of a frame, which is where enhanced files keep their values."""
    return [element.value[0] for element in group if element.VR == "SQ" and len(element.value)]


def _place(sources: list[Dataset | Elements]) -> dict[str, Any]:
    """What may differ from frame to frame; the first source that has a value gives it."""
    image_type = _first(sources, "FrameType") or _first(sources, "ImageType") or ()
    image_type = (image_type,) if isinstance(image_type, str) else tuple(str(word).upper() for word in image_type)
    kernel = _first(sources, "ConvolutionKernel") or ""
    return {
        "image_type": image_type,
        "kernel": (kernel if isinstance(kernel, str) else "/".join(map(str, kernel))).strip(),
        "pixel_spacing": _numbers(sources, "PixelSpacing", 2),
        "position": _numbers(sources, "ImagePositionPatient", 3),
        "orientation": _numbers(sources, "ImageOrientationPatient", 6),
        "thickness": _number(sources, "SliceThickness"),
        "slope": _number(sources, "RescaleSlope"),
        "intercept": _number(sources, "RescaleIntercept"),
    }


def _facts(sources: list[Dataset | Elements], keywords: tuple[str, ...]) -> dict[str, str]:
    return {word: str(value) for word in keywords if (value := _first(sources, word)) not in (None, "")}


def _needed(dataset: Dataset | Elements, keyword: str) -> Any:
    if keyword not in dataset:
        raise ValueError(f"no {keyword}")
    return dataset.get(keyword)


def _first(sources: list[Dataset | Elements], keyword: str) -> Any:
    for source in sources:
        if keyword in source:
            return source.get(keyword)
    return None


def _numbers(sources: list[Dataset | Elements], keyword: str, count: int) -> tuple[float, ...] | None:
    values = _first(sources, keyword)
    if values is None or isinstance(values, str) or len(values) != count:
        return None
    return tuple(float(value) for value in values)


def _number(sources: list[Dataset | Elements], keyword: str) -> float | None:
    value = _first(sources, keyword)
    return None if value in (None, "") else float(value)


def _integer(dataset: Dataset | Elements, keyword: str) -> int | None:
    try:
        return int(dataset.get(keyword))
    except (TypeError, ValueError):
        return None
