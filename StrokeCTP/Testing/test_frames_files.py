"""Perfusion frames from 4-D image files: times beside them, in them, or none."""

from __future__ import annotations

import json

import ctp_dicom as build
import numpy as np
import pytest
import SimpleITK

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from StrokeCTPLib.frames import read_frames
from StrokeCTPLib.times_file import read_times
from Testing.dicom_series import one_sentence

TIMES_S = build.variable_sampling()[:, 0]
SHUTTLE_S = build.shuttle_times()


def phantom(times_s: np.ndarray) -> np.ndarray:
    """The clock phantom (t, k, j, i) at (t, k) seconds."""
    points = np.zeros((16, 16, 3))
    return np.array(
        [[build.contents_at(s, k * 5.0)(points) for k, s in enumerate(row)] for row in np.rint(times_s * 10) / 10]
    ).astype(np.int16)


def image_file(path, times_s=None, step_s=None):
    """The phantom as a 4-D NIfTI or NRRD file that states ``step_s``, or no time, between frames."""
    array = phantom(build.variable_sampling() if times_s is None else times_s)
    if path.suffix == ".nrrd":
        write_4d_nrrd(array, path)
    else:
        stated = None if step_s is None else np.arange(len(array)) * step_s
        write_volume(Volume(array, np.diag([-14.0, -14.0, 5.0, 1.0]), "HU", frame_times_s=stated), path)
    return path


def write_4d_nrrd(array, path):
    """ITK's own 4-D file, whose fourth spacing is 1."""
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    image.SetSpacing([14.0, 14.0, 5.0, 1.0])
    SimpleITK.WriteImage(image, str(path))


SIDECARS = {
    "json list": (".json", json.dumps(TIMES_S.tolist())),
    "json times": (".json", json.dumps({"times_s": TIMES_S.tolist(), "Modality": "CT"})),
    "json ms": (".json", json.dumps({"times_ms": (TIMES_S * 1000).tolist()})),
    "json BIDS": (".json", json.dumps({"VolumeTiming": TIMES_S.tolist()})),
    "csv": (".csv", "frame;time_s\n" + "".join(f"{n};{t}\n" for n, t in enumerate(TIMES_S))),
    "csv without titles": (".csv", "".join(f"{n},{t}\n" for n, t in enumerate(TIMES_S, start=1))),
    "txt row": (".txt", " ".join(map(str, TIMES_S))),
    "txt column": (".txt", "# seconds\n" + "\n".join(map(str, TIMES_S)) + "\n"),
    "milliseconds": ("_times.txt", "\n".join(f"{1000 * t:.0f}" for t in TIMES_S)),
}


@pytest.mark.parametrize(("suffix", "text"), SIDECARS.values(), ids=SIDECARS)
def test_times_beside_a_nifti_file(tmp_path, suffix, text):
    path = image_file(tmp_path / "scan.nii.gz", step_s=1.0)
    (tmp_path / f"scan{suffix}").write_text(text, encoding="utf-8-sig")
    frames = read_frames(path)
    assert np.abs(frames.times_s - TIMES_S[:, None]).max() <= 0.001
    assert np.abs(build.clock_of(frames.volume.array) - frames.times_s).max() <= 0.051
    assert frames.report.time_source == "the times file beside the image"
    assert frames.report.layout == "a 4-D NIfTI file"


@pytest.mark.parametrize("how", ["rows", "columns", "BIDS"])
def test_times_of_every_slice(tmp_path, how):
    path = image_file(tmp_path / "scan.nrrd", SHUTTLE_S)
    table = SHUTTLE_S if how == "rows" else SHUTTLE_S.T
    times = tmp_path / ("t.json" if how == "BIDS" else "t.txt")
    times.write_text("\n".join(" ".join(f"{x:.3f}" for x in row) for row in table))
    truth = SHUTTLE_S
    if how == "BIDS":
        truth = np.add.outer(TIMES_S, [0.0, 0.3, 0.6, 0.9])
        times.write_text(json.dumps({"VolumeTiming": TIMES_S.tolist(), "SliceTiming": [0.0, 0.3, 0.6, 0.9]}))
    assert np.abs(read_frames(path, times=times).times_s - truth).max() <= 0.001


def test_a_stated_interval_is_used_with_a_warning(tmp_path):
    frames = read_frames(image_file(tmp_path / "scan.nii", build.UNIFORM_S, step_s=1.5))
    assert np.abs(frames.times_s - build.UNIFORM_S).max() <= 0.001
    assert any("constant interval of 1.5 s" in warning for warning in frames.report.warnings)


def test_a_description_beside_the_image_without_times_is_no_times_file(tmp_path):
    path = image_file(tmp_path / "scan.nii", build.UNIFORM_S, step_s=1.5)
    (tmp_path / "scan.json").write_text('{"Modality": "CT", "KVP": 80}')
    assert read_frames(path).report.time_source == "the constant interval that the file states"


def test_frames_out_of_order_are_sorted(tmp_path):
    order = np.random.default_rng(1).permutation(20)
    path = image_file(tmp_path / "scan.nrrd", build.variable_sampling()[order])
    frames = read_frames(path, times=TIMES_S[order])
    assert np.abs(frames.times_s[:, 0] - TIMES_S).max() <= 0.001
    assert np.abs(build.clock_of(frames.volume.array) - frames.times_s).max() <= 0.051
    assert "The frames were not in order of time and were sorted." in frames.report.warnings


def test_padding_becomes_air(tmp_path):
    array = phantom(build.UNIFORM_S)
    array[..., 0, 0] = -3024
    write_4d_nrrd(array, tmp_path / "scan.nrrd")
    frames = read_frames(tmp_path / "scan.nrrd", interval_s=1.5)
    assert frames.volume.array.min() == -1024 and frames.volume.array.dtype == np.int16
    assert frames.report.notes and frames.volume.unit == "HU"


# -- files of Slicer -------------------------------------------------------------------------------------------


def slicer_file(path, axis: int, lines: list[str], units: str = "") -> None:
    """An NRRD file with the frames as the first (components) or the last (list) axis, and these header lines."""
    array = phantom(build.variable_sampling())
    kinds, directions = ["domain"] * 3, ["(-14,0,0)", "(0,-14,0)", "(0,0,5)"]
    sizes = ["16", "16", "4"]
    for words, own in ((kinds, "list"), (directions, "none"), (sizes, "20")):
        words.insert(axis, own)
    unit_words = [f'"{units if n == axis else ""}"' for n in range(4)]
    header = [
        "NRRD0004", "type: int16", "dimension: 4", "space: right-anterior-superior", f"sizes: {' '.join(sizes)}",
        f"space directions: {' '.join(directions)}", f"kinds: {' '.join(kinds)}", f"units: {' '.join(unit_words)}",
        "endian: little", "encoding: raw", "space origin: (0,0,0)", *lines,
    ]  # fmt: skip
    data = np.moveaxis(array, 0, -1) if axis == 0 else array
    path.write_bytes("\n".join(header).encode() + b"\n\n" + np.ascontiguousarray(data).astype("<i2").tobytes())


@pytest.mark.parametrize("axis", [0, 3])
@pytest.mark.parametrize("unit", ["s", "ms"])
def test_a_sequence_keeps_its_own_times(tmp_path, axis, unit):
    values = " ".join(f"{t * (1000 if unit == 'ms' else 1):g}" for t in TIMES_S)
    slicer_file(tmp_path / "a.seq.nrrd", axis, [f"axis {axis} index values:={values}"], unit)
    frames = read_frames(tmp_path / "a.seq.nrrd")
    assert np.abs(frames.times_s - TIMES_S[:, None]).max() <= 0.001
    assert np.abs(build.clock_of(frames.volume.array) - frames.times_s).max() <= 0.051
    assert frames.volume.spacing_mm == pytest.approx((14, 14, 5))
    assert frames.report.time_source == "the times stored in the file"


def test_a_multi_volume_keeps_its_labels(tmp_path):
    labels = ",".join(f"{1000 * t:g}" for t in TIMES_S)
    slicer_file(tmp_path / "a.nrrd", 0, [f"MultiVolume.FrameLabels:={labels}"])
    assert np.abs(read_frames(tmp_path / "a.nrrd").times_s - TIMES_S[:, None]).max() <= 0.001


def test_frame_numbers_are_no_times(tmp_path):
    slicer_file(tmp_path / "a.seq.nrrd", 0, [f"axis 0 index values:={' '.join(map(str, range(20)))}"])
    with pytest.raises(InputError) as error:
        read_frames(tmp_path / "a.seq.nrrd")
    assert "does not say when its frames were taken; give a times file" in one_sentence(error)
    assert read_frames(tmp_path / "a.seq.nrrd", interval_s=1.5).report.interval_s == 1.5


# -- faults ----------------------------------------------------------------------------------------------------

BAD_TIMES = {
    "constant": (np.ones(20), "gives all frames the same time"),
    "a time twice": (np.r_[0, 0, np.arange(1, 19)], "gives frame 2 the same time as frame 1"),
    "too many": (np.arange(21.0), "holds 21 times for 20 frames of 4 slices"),
    "slices disagree": (build.UNIFORM_S * [1, 1, 1, -1], "gives frame 2 an earlier time than frame 1"),
    "not numbers": (np.full(20, np.nan), "times that are not numbers"),
    "minutes apart": (np.arange(20) * 60.0, "frames 60 s apart, which no CT perfusion has"),
}


@pytest.mark.parametrize(("times", "words"), BAD_TIMES.values(), ids=BAD_TIMES)
def test_bad_times_are_refused(tmp_path, times, words):
    path = image_file(tmp_path / "scan.nrrd")
    with pytest.raises(InputError) as error:
        read_frames(path, times=times)
    assert words in one_sentence(error)


def test_bad_files_are_refused(tmp_path):
    few = image_file(tmp_path / "few.nii", build.UNIFORM_S[:4], step_s=1.5)
    with pytest.raises(InputError, match="has 4 frames where perfusion needs at least 5"):
        read_frames(few)
    with pytest.raises(InputError, match="does not say when its frames were taken"):
        read_frames(image_file(tmp_path / "still.nii"))
    write_4d_nrrd(np.full((20, 4, 8, 8), 9000, np.int16), tmp_path / "bright.nrrd")
    with pytest.raises(InputError, match="does not hold HU"):
        read_frames(tmp_path / "bright.nrrd", interval_s=1.5)
    write_4d_nrrd(phantom(build.UNIFORM_S) + np.int16(1024), tmp_path / "stored.nrrd")
    with pytest.raises(InputError, match="tissue near 1000, as before the rescale"):
        read_frames(tmp_path / "stored.nrrd", interval_s=1.5)
    write_volume(Volume(np.zeros((4, 8, 8), np.int16), np.eye(4)), tmp_path / "flat.nrrd")
    with pytest.raises(InputError, match="single three-dimensional image"):
        read_frames(tmp_path / "flat.nrrd", interval_s=1.5)
    SimpleITK.WriteImage(SimpleITK.Image([8, 8, 4], SimpleITK.sitkVectorUInt8, 3), str(tmp_path / "rgb.nrrd"))
    with pytest.raises(InputError, match="holds colours"):
        read_frames(tmp_path / "rgb.nrrd", interval_s=1.5)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", '{"KVP": 80}'), ("a.json", "{"), ("a.csv", "a,b\nc,d\n"), ("a.txt", ""), ("b.txt", None)],
)
def test_files_without_times_are_refused(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        read_times(tmp_path / name)
    assert ("was not found" if text is None else "holds no times of frames") in one_sentence(error)
