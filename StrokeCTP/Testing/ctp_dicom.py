"""CT perfusion series in every DICOM layout, for tests, with the exact time of every slice.

The phantom is a head whose brain is a clock: its HU is 20 plus ten times the seconds since the first sample, and a
patch tells its height. So an image put at the wrong time or place shows in its own pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from Testing.dicom_series import image, new_uid, save

MATRIX, PIXEL_MM, STEP_MM = 16, 14.0, 5.0
HU_PER_S, HU_AT_START = 10.0, 20.0
START = datetime(2024, 3, 1, 10, 15, 30, 250000)
#: Four slices every 1.5 s, and how long after its frame's start each is taken where slices are not simultaneous.
HEIGHTS_MM = np.arange(4) * STEP_MM
UNIFORM_S = np.repeat(np.arange(20.0)[:, None] * 1.5, len(HEIGHTS_MM), axis=1)


def clock_of(volume_hu: np.ndarray) -> np.ndarray:
    """(t, k) seconds that the brain shows in a (t, k, j, i) array."""
    return (volume_hu[:, :, 6:10, 6:8].mean(axis=(2, 3)) - HU_AT_START) / HU_PER_S


def height_of(volume_hu: np.ndarray) -> np.ndarray:
    """(t, k) height in mm that the patch shows in a (t, k, j, i) array."""
    return volume_hu[:, :, 6:10, 9].mean(axis=2)


def shuttle_times(period_s: float = 2.8, frames: int = 20, slices: int = 4) -> np.ndarray:
    """(t, k) times of a table that moves up and down: slices are taken in turn, in alternating direction."""
    offsets = np.arange(slices) * period_s / (2 * slices)
    down = offsets[::-1]
    return np.array([t * period_s + (down if t % 2 else offsets) for t in range(frames)])


def contents_at(seconds: float, height_mm: float) -> Callable[[np.ndarray], np.ndarray]:
    """The phantom's HU at (rows, columns, 3) points, as ``dicom_series.image`` asks for them."""

    def contents(points: np.ndarray) -> np.ndarray:
        hu = np.full(points.shape[:2], -1000.0)
        hu[3:13, 3:13] = 900.0
        hu[4:12, 4:12] = HU_AT_START + HU_PER_S * seconds
        hu[6:10, 9] = height_mm
        return hu

    return contents


def stamp(dataset: Dataset, prefix: str, when: datetime) -> None:
    """Set a date and a time, such as AcquisitionDate and AcquisitionTime, to 0.1 ms."""
    setattr(dataset, f"{prefix}Date", f"{when:%Y%m%d}")
    setattr(dataset, f"{prefix}Time", f"{when:%H%M%S.%f}")


def acquisition(times_s: np.ndarray = UNIFORM_S, start: datetime = START, **options) -> list[list[FileDataset]]:
    """Images [t][k] of one series, numbered time point by time point, with AcquisitionDate and AcquisitionTime.

    Content times are those of a reconstruction twenty minutes later, several images a second.

    Args:
        times_s: (t, k) seconds from ``start``.
        start: when the first sample is taken.
        options: passed to ``dicom_series.image``; ``heights_mm``, ``origin_mm`` (corner, x and y) and ``uid`` are ours.
    """
    heights = options.pop("heights_mm", HEIGHTS_MM)
    origin = options.pop("origin_mm", (-112.0, -112.0))
    uid = options.pop("uid", None) or new_uid()
    frames, number = [], 0
    for row in times_s:
        frames.append([])
        for k, (height, seconds) in enumerate(zip(heights, row)):
            number += 1
            one = image(
                (*origin, float(height)), series_uid=uid, number=number, matrix=MATRIX,
                contents=contents_at(float(seconds), k * STEP_MM), **{"pixel_mm": PIXEL_MM, **options},
            )  # fmt: skip
            one.SeriesDescription, one.KVP = "CTP 5.0 H31s", 80
            stamp(one, "Acquisition", start + timedelta(seconds=float(seconds)))
            stamp(one, "Content", start + timedelta(minutes=20, seconds=0.04 * number))
            frames[-1].append(one)
    return frames


def flat(frames: list[list[FileDataset]]) -> list[FileDataset]:
    """All images, time point by time point."""
    return [one for row in frames for one in row]


def write(images: list[Dataset], folder: Path, shuffle: bool = True) -> Path:
    """Write images under names that say nothing of their order."""
    order = np.random.default_rng(0).permutation(len(images)) if shuffle else range(len(images))
    return save([images[index] for index in order], folder)


# -- layouts -----------------------------------------------------------------------------------------------------


def one_series(folder: Path, times_s: np.ndarray = UNIFORM_S, **options) -> Path:
    """One series of T x Z images."""
    return write(flat(acquisition(times_s, **options)), folder)


def series_per_time_point(folder: Path, times_s: np.ndarray = UNIFORM_S) -> Path:
    """Every time point a series of its own, numbered from one."""
    frames = acquisition(times_s)
    for t, row in enumerate(frames):
        uid = new_uid()
        for k, one in enumerate(row):
            one.SeriesInstanceUID, one.SeriesNumber, one.InstanceNumber = uid, 10 + t, k + 1
            one.StudyInstanceUID = frames[0][0].StudyInstanceUID
    return write(flat(frames), folder)


def position_major(folder: Path, times_s: np.ndarray = UNIFORM_S, series_per_position: bool = False) -> Path:
    """All time points of a place, then those of the next; in one series, or one for each place."""
    frames = acquisition(times_s)
    count = len(frames)
    for t, row in enumerate(frames):
        for k, one in enumerate(row):
            one.InstanceNumber = k * count + t + 1
    if series_per_position:
        for k in range(len(frames[0])):
            uid = new_uid()
            for t in range(count):
                frames[t][k].SeriesInstanceUID, frames[t][k].SeriesNumber = uid, 5 + k
                frames[t][k].InstanceNumber = t + 1
    return write(flat(frames), folder)


def shuttle(folder: Path) -> Path:
    """A table that moves up and down: every slice has its own times, at alternating distances."""
    return one_series(folder, shuttle_times())


def toggle_times() -> np.ndarray:
    """(t, k) times of a table that toggles between two places of two slices each, 1.4 s apart."""
    return np.arange(20.0)[:, None] * 2.8 + [0.0, 0.0, 1.4, 1.4]


def enhanced_per_time_point(folder: Path, times_s: np.ndarray = UNIFORM_S) -> Path:
    """Every time point an enhanced file of its own with one AcquisitionDateTime for all its frames."""
    uid, study = new_uid(), new_uid()
    for t in range(len(times_s)):
        enhanced(folder, times_s[t : t + 1])
        path = folder / f"{t + 1:04d}.dcm"
        dataset = dcmread(path)
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.InstanceNumber = uid, study, t + 1
        dataset.AcquisitionDateTime = dataset.AcquisitionDate + dataset.AcquisitionTime
        for group in dataset.PerFrameFunctionalGroupsSequence:
            del group.FrameContentSequence
        dataset.save_as(path)
    return folder


def enhanced(folder: Path, times_s: np.ndarray = UNIFORM_S) -> Path:
    """One enhanced multi-frame file, frames place by place, each with its FrameAcquisitionDateTime and own slope."""
    frames = acquisition(times_s)
    ordered = [frames[t][k] for k in range(times_s.shape[1]) for t in range(times_s.shape[0])]
    dataset = copy.deepcopy(ordered[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2.1")
    for word in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
                 "RescaleIntercept", "ConvolutionKernel"):  # fmt: skip
        del dataset[word]
    dataset.NumberOfFrames = len(ordered)
    shared = item(
        PixelMeasuresSequence=item(PixelSpacing=ordered[0].PixelSpacing, SliceThickness=5.0),
        PlaneOrientationSequence=item(ImageOrientationPatient=ordered[0].ImageOrientationPatient),
        CTReconstructionSequence=item(ConvolutionKernel="H31s"),
    )
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(_frame_group(one) for one in ordered)
    dataset.PixelData = b"".join(one.PixelData for one in ordered)
    return save([dataset], folder)


def _frame_group(one: FileDataset) -> Dataset:
    return item(
        FrameContentSequence=item(FrameAcquisitionDateTime=one.AcquisitionDate + one.AcquisitionTime),
        PlanePositionSequence=item(ImagePositionPatient=one.ImagePositionPatient),
        PixelValueTransformationSequence=item(
            RescaleSlope=one.RescaleSlope, RescaleIntercept=one.RescaleIntercept, RescaleType="HU"
        ),
    )


def item(**elements) -> Dataset:
    """A data set of these elements; nested data sets become sequences of one item."""
    dataset = Dataset()
    for word, value in elements.items():
        setattr(dataset, word, Sequence([value]) if isinstance(value, Dataset) else value)
    return dataset


def variable_sampling() -> np.ndarray:
    """(t, k) times: 12 frames every 1.5 s, a CT angiography of 9 s, then 8 frames every 3.5 s."""
    row = np.concatenate([np.arange(12) * 1.5, 16.5 + 9.0 + np.arange(8) * 3.5])
    return np.repeat(row[:, None], len(HEIGHTS_MM), axis=1)


def with_foreign_images(folder: Path, **foreign) -> Path:
    """One series of T x Z images with a second reconstruction of it mixed in, under the same series UID.

    Args:
        foreign: what is different about the other reconstruction: ``thickness_mm``, ``pixel_mm``, ``origin_mm``,
            ``ImageType``, ``ConvolutionKernel`` (DICOM words are set as elements).
    """
    elements = {word: foreign.pop(word) for word in list(foreign) if word[0].isupper()}
    main = flat(acquisition())
    others = flat(acquisition(uid=main[0].SeriesInstanceUID, **foreign))[:40]
    for one in others:
        one.PixelData = np.roll(np.frombuffer(one.PixelData, "<i2"), 5).tobytes()
        for word, value in elements.items():
            setattr(one, word, value)
    return write([*main, *others], folder)
