"""Small studies of the three tasks, in the formats that archives hold: what a simulated archive is made of.

Heads and spines are the bundled scans, coarser, shifted and with noise of their own, and phantoms; perfusion is the
simulated head of the stroke task. All of it is small, so that a case takes seconds on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from HemorrhageSegLib.example import LEAST_ML, SCAN
from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.example import IMAGE, LEAST_DISCS
from StrokeCTPLib.example import simulated_head
from Testing import dicom_series, phantom_head

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
#: Pixels of the bundled head CT that make one of ours.
COARSER = 4
#: HU of a clot, in phantoms without one.
CLOT_HU = 65
#: A measured volume may be off by this factor: starters on coarse pictures; the archive is no test of accuracy.
FACTOR = 1.6
#: mL that the default model finds in the bundled head at full size, and discs in the bundled spine.
MOST_ML, DISCS = 17.1, 8
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_START = datetime(2024, 3, 1, 10, 15, 30)


@dataclass(frozen=True)
class Study:
    """One study of the archive.

    Attributes:
        task: that it is for. name: as the batch calls it.
        kind: what it is made of; of a broken one, what is wrong with it.
        grid: (slices, rows, columns) of the image, for the result of a good one.
        measure, least, most: what a good one is measured to have, and between which bounds its truth lets it lie.
        sentence: pattern of the sentence that a broken one must get; empty for a good one.
    """

    task: str
    name: str
    kind: str
    grid: tuple[int, ...] = ()
    measure: str = ""
    least: float = 0.0
    most: float = np.inf
    sentence: str = ""


@dataclass(frozen=True)
class Picture:
    """What a good study shows, and what of it is measured, between which bounds."""

    volume: Volume
    measure: str
    least: float
    most: float


# -- what they show -------------------------------------------------------------------------------------------


@cache
def _sample(path: Path) -> Volume:
    return read_volume(path)


def real_head(rng: np.random.Generator) -> Picture:
    """The bundled head CT at 2.9 mm, shifted by up to a few pixels, with 2 HU of noise."""
    sample = _sample(SCAN)
    side = sample.array.shape[1] // COARSER
    shifted = np.roll(sample.array, rng.integers(-6, 7, 2), axis=(1, 2))[:, : side * COARSER, : side * COARSER]
    coarse = shifted.reshape(-1, side, COARSER, side, COARSER).mean(axis=(2, 4))
    coarse = coarse + rng.normal(0, 2, coarse.shape)
    matrix = sample.ijk_to_ras @ np.diag([COARSER, COARSER, 1.0, 1.0])
    volume = Volume(np.rint(coarse).astype(np.int16), matrix, "HU")
    return Picture(volume, "Total volume", LEAST_ML, FACTOR * MOST_ML)


def phantom(rng: np.random.Generator) -> Picture:
    """A head of ellipsoids with a clot of 12 to 16 mm radius somewhere deep on one side."""
    head, brain = phantom_head.real_head()
    k, j, i = np.indices(head.array.shape)
    centre = 13 + rng.uniform(-2, 2), 60 + rng.uniform(-8, 8), 56 + rng.choice([-1, 1]) * rng.uniform(16, 24)
    far = np.hypot((k - centre[0]) * phantom_head.SLICE_MM, np.hypot(j - centre[1], i - centre[2]))
    clot = brain & (far < rng.uniform(12, 16))
    array = np.where(clot, CLOT_HU, head.array) + rng.normal(0, 1, clot.shape)
    volume = Volume(np.rint(array).astype(np.int16), head.ijk_to_ras, "HU")
    true_ml = float(clot.sum(axis=(1, 2)) @ volume.voxel_volumes_ml)
    return Picture(volume, "Total volume", true_ml / FACTOR, FACTOR * true_ml)


def perfusion(rng: np.random.Generator) -> Picture:
    """(42, 4, 72, 72) the simulated head with a stroke, with 1 HU of noise of its own."""
    frames, stage = _simulated_head()
    noise = np.rint(rng.normal(0, 1, frames.array.shape)).astype(np.int16)
    true_ml = float((stage == 2).sum(axis=(1, 2)) @ frames.voxel_volumes_ml)
    return Picture(replace(frames, array=frames.array + noise), "Core volume", true_ml / FACTOR, FACTOR * true_ml)


@cache
def _simulated_head() -> tuple[Volume, np.ndarray]:
    return simulated_head()


def spine(rng: np.random.Generator) -> Picture:
    """A part of the bundled lumbar MR: up to 12 rows and columns less on every side, with noise."""
    sample = _sample(IMAGE)
    first, last = rng.integers(0, 13, 2), np.array(sample.array.shape[1:]) - rng.integers(0, 13, 2)
    array = sample.array[:, first[0] : last[0], first[1] : last[1]].astype(float)
    array = np.clip(array + rng.normal(0, 2, array.shape), 0, 255)
    matrix = sample.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, :2] @ first[::-1]
    volume = Volume(np.rint(array).astype(np.uint8), matrix, meta={"modality": "MR"})
    return Picture(volume, "Discs found", LEAST_DISCS, DISCS)


# -- as files and as DICOM ------------------------------------------------------------------------------------


def as_file(suffix: str) -> Callable[[Volume, Path], None]:
    """Writes a volume as one file of that suffix."""

    def write(volume: Volume, place: Path) -> None:
        write_volume(volume, place.with_name(place.name + suffix), compress=True)

    return write


def as_dicom(volume: Volume, place: Path) -> None:
    """Writes a volume as a folder of DICOM images."""
    dicom_series.save(images_of(volume), place)


def images_of(volume: Volume) -> list[FileDataset]:
    """DICOM images of one series, CT or, if ``meta`` says so, MR; frames of perfusion with their times."""
    uid, is_mr = dicom_series.new_uid(), volume.meta.get("modality") == "MR"
    frames = volume.array if volume.array.ndim == 4 else volume.array[None]
    images: list[FileDataset] = []
    for t, frame in enumerate(frames):
        for k in range(len(frame)):
            one = _image(volume, k, frame[k], uid, len(images) + 1)
            if volume.array.ndim == 4:
                when = _START + timedelta(seconds=float(volume.frame_times_s[t]))
                one.AcquisitionDate, one.AcquisitionTime = f"{when:%Y%m%d}", f"{when:%H%M%S.%f}"
                one.KVP, one.SeriesDescription = 80, "CTP 10.0 H31s"
            if is_mr:
                _make_mr(one)
            images.append(one)
    return images


def _image(volume: Volume, k: int, pixels: np.ndarray, uid: str, number: int) -> FileDataset:
    lps = _RAS_TO_LPS @ volume.ijk_to_ras[:3]
    column, row, step = (np.linalg.norm(lps[:, axis]) for axis in range(3))
    one = dicom_series.image(
        tuple(lps @ (0, 0, k, 1)), lps[:, 0] / column, lps[:, 1] / row,
        series_uid=uid, number=number, thickness_mm=float(f"{step:.4f}"), matrix=1,
        contents=lambda points: pixels.astype(float),
    )  # fmt: skip
    one.Rows, one.Columns = pixels.shape
    one.PixelSpacing = [float(f"{row:.6f}"), float(f"{column:.6f}")]
    return one


def _make_mr(one: FileDataset) -> None:
    one.Modality, one.SeriesDescription = "MR", "T2 TSE sag"
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = MR_IMAGE
    stored = np.frombuffer(one.PixelData, "<i2") + int(one.RescaleIntercept)
    one.PixelData = stored.astype("<i2").tobytes()
    del one.RescaleIntercept, one.RescaleSlope, one.ConvolutionKernel


#: task -> (what it is, picture, form) of good studies, taken in turn.
GOOD = {
    "hemorrhage": (
        ("head CT, NRRD", real_head, as_file(".nrrd")),
        ("head CT, DICOM", real_head, as_dicom),
        ("phantom with a clot, NIfTI", phantom, as_file(".nii.gz")),
        ("phantom with a clot, DICOM", phantom, as_dicom),
        ("head CT, NIfTI", real_head, as_file(".nii.gz")),
    ),
    "stroke": (
        ("perfusion, NIfTI", perfusion, as_file(".nii.gz")),
        ("perfusion, DICOM", perfusion, as_dicom),
        ("perfusion, NRRD", perfusion, as_file(".nrrd")),
    ),
    "discs": (
        ("lumbar MR, NRRD", spine, as_file(".nrrd")),
        ("lumbar MR, DICOM", spine, as_dicom),
        ("lumbar MR, NIfTI", spine, as_file(".nii.gz")),
    ),
}


def write_good(task: str, number: int, place: Path, rng: np.random.Generator) -> Study:
    """Write the number-th good study of a task; ``place`` is its path without suffix."""
    kind, make, write = GOOD[task][number % len(GOOD[task])]
    shown = make(rng)
    write(shown.volume, place)
    return Study(task, place.name, kind, shown.volume.array.shape[-3:], shown.measure, shown.least, shown.most)
