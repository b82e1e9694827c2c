"""Perfusion maps of a head for tests, and DICOM series of them as vendors write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID
from scipy import ndimage

from NeuraxisLib.volume import Volume
from Testing.dicom_series import CANARY, image, new_uid, save

SLICES, SIDE = 4, 96
SPACING_MM = (1.5, 1.5, 5.0)
SECONDARY_CAPTURE = UID("1.2.840.10008.5.1.4.1.1.7")
#: Highest value of the tests' maps and their median in the brain.
TOPS = {"cbf": 100.0, "cbv": 6.0, "mtt": 20.0, "ttp": 20.0, "tmax": 12.0, "delay": 12.0}
UNITS = {"cbf": "mL/100 g/min", "cbv": "mL/100 g", "mtt": "s", "ttp": "s", "tmax": "s", "delay": "s"}


def brain() -> np.ndarray:
    """bool (SLICES, SIDE, SIDE)."""
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    return np.broadcast_to(np.hypot(rows, columns) < 0.8, (SLICES, SIDE, SIDE))


def values(kind: str, seed: int = 0) -> np.ndarray:
    """A smooth map (SLICES, SIDE, SIDE) from nearly nothing to the top of its range; NaN outside the brain."""
    random = np.random.default_rng([seed, *kind.encode()])
    array = ndimage.gaussian_filter(random.normal(size=(SLICES, SIDE, SIDE)), (0, 6, 6))
    array = array.ravel().argsort().argsort().reshape(array.shape) / (array.size - 1)
    return np.where(brain(), TOPS[kind] * (0.02 + 0.98 * array), np.nan).astype(np.float32)


def volume(kind: str, matrix: np.ndarray | None = None) -> Volume:
    """A map with geometry."""
    if matrix is None:
        matrix = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    return Volume(values(kind), matrix, UNITS[kind])


def scalar_series(array: np.ndarray, description: str, slope: float = 0.01, **elements) -> list[Dataset]:
    """A series of scaled whole numbers; where there is no value it stores 0. None deletes an element."""
    uid, images = new_uid(), []
    stored = np.rint(np.nan_to_num(array) / slope).astype("<i2")
    for k, plane in enumerate(stored):
        one = image((-70.0, -70.0, k * SPACING_MM[2]), series_uid=uid, number=k + 1, matrix=4)
        one.StudyInstanceUID = "1.2.3"
        one.Rows, one.Columns = plane.shape
        one.PixelSpacing, one.PixelData = [SPACING_MM[1], SPACING_MM[0]], plane.tobytes()
        one.SeriesDescription, one.ImageType = description, ["DERIVED", "PRIMARY", "AXIAL"]
        one.RescaleSlope, one.RescaleIntercept = slope, 0
        _set(one, elements)
        images.append(one)
    return images


def colour_series(rgb: np.ndarray, description: str, **elements) -> list[Dataset]:
    """A series of secondary captures (k, h, w, 3); None deletes an element."""
    uid, images = new_uid(), []
    for k, picture in enumerate(rgb):
        (one,) = scalar_series(np.zeros((1, *picture.shape[:2])), description)
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
        one.SeriesInstanceUID, one.InstanceNumber = uid, k + 1
        one.ImagePositionPatient = [-70.0, -70.0, k * SPACING_MM[2]]
        one.SamplesPerPixel, one.PlanarConfiguration, one.PhotometricInterpretation = 3, 0, "RGB"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 8, 8, 7, 0
        del one.RescaleSlope, one.RescaleIntercept
        one.PixelData = np.ascontiguousarray(picture).tobytes()
        _set(one, elements)
        images.append(one)
    return images


def palette_series(index: np.ndarray, palette: np.ndarray, description: str, **elements) -> list[Dataset]:
    """A series of 8-bit indices (k, h, w) into a palette (256, 3) of 8-bit colours, stored with 16 bits."""
    images = colour_series(np.repeat(index[..., None], 3, axis=-1).astype(np.uint8), description)
    for one, plane in zip(images, index.astype(np.uint8)):
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "PALETTE COLOR"
        del one.PlanarConfiguration
        one.PixelData = plane.tobytes()
        for column, colour in enumerate(("Red", "Green", "Blue")):
            setattr(one, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            table = (palette[:, column].astype("<u2") * 257).tobytes()
            setattr(one, f"{colour}PaletteColorLookupTableData", table)
        _set(one, elements)
    return images


def mapping(slope: float, unit: str, label: str) -> Sequence:
    """A real-world value mapping as vendors attach it to single images."""
    item, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    item.LUTLabel, item.LUTExplanation, item.MeasurementUnitsCodeSequence = label, label, Sequence([code])
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, 0.0
    return Sequence([item])


def write(images: list[Dataset], folder: Path) -> Path:
    """Add the images to a folder."""
    return save(images, folder)


def one_sentence(error) -> None:
    """Assert that a caught error is one sentence that names neither patient nor folder."""
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and ". " not in text
    assert CANARY not in text and "/tmp" not in text and "pytest" not in text


def _set(one: Dataset, elements: dict) -> None:
    for word, value in elements.items():
        if value is None:
            if word in one:
                del one[word]
        else:
            setattr(one, word, value)
