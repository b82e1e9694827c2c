"""Bad perfusion input: one sentence that names the fault and the remedy, with neither patient nor folder in it."""

from __future__ import annotations

from datetime import timedelta

import ctp_dicom as build
import numpy as np
import pytest
from ctp_dicom import UNIFORM_S, acquisition, flat, write

from NeuraxisLib.errors import GeometryError, InputError, SeriesChoiceError
from StrokeCTPLib.frames import read_frames
from Testing.dicom_series import change, new_uid, one_sentence


def _without_times(images):
    for one in images:
        del one.AcquisitionDate, one.AcquisitionTime, one.ContentDate, one.ContentTime
    return images


def _constant_times(images):
    for one in images:
        build.stamp(one, "Acquisition", build.START)
        build.stamp(one, "Content", build.START)
    return images


def _contradicting(images):
    """Times in one order, numbers in another, and nothing else."""
    for index, one in enumerate(images):
        one.InstanceNumber = 1 + index % 4 + 4 * ((index // 4 * 7) % 20)
        del one.ContentDate, one.ContentTime
    return images


def _repeated_time(images):
    for one in images[40:44]:
        one.AcquisitionTime, one.AcquisitionDate = images[20].AcquisitionTime, images[20].AcquisitionDate
        one.PixelData = images[0].PixelData
    for one in images:
        del one.ContentDate, one.ContentTime
        one.AcquisitionNumber = one.InstanceNumber
    return images


def _few(images):
    return images[:12]


def _hole(images):
    return [one for index, one in enumerate(images) if index not in (42, 46)]


def _half_a_slice(images):
    return [one for index, one in enumerate(images) if index % 4 != 2 or index < 40]


def _no_slice(images):
    return [one for index, one in enumerate(images) if index % 4 != 2]


def _odd_scale(images):
    images[41].RescaleIntercept = 0
    return images


def _ragged_start(images):
    return images[1:4] + images[5:8] + images[9:12] + images[12:]


FAULTS = {
    "no times": (_without_times, InputError, "does not say when its images were taken; give a times file"),
    "constant times": (_constant_times, InputError, "gives all its time points the same time; give a times file"),
    "contradicting times": (_contradicting, InputError, "times that contradict its image numbers"),
    "a time twice": (_repeated_time, InputError, "is the same in several images of a place"),
    "too few frames": (_few, InputError, "at most 3 images of a place where at least 5 are needed"),
    "two in a row": (_hole, InputError, "lacks several images in a row of slice 3 (from frame 11)"),
    "half a slice": (_half_a_slice, InputError, "only 10 of 20 images of slice 3"),
    "no slice": (_no_slice, GeometryError, "one slice is missing"),
    "odd scaling": (_odd_scale, InputError, "scaled unlike the others of their place"),
    "ragged start": (_ragged_start, InputError, "lacks images of frame 3"),
}


@pytest.mark.parametrize(("spoil", "kind", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_sentence(tmp_path, spoil, kind, words):
    folder = write(spoil(flat(acquisition())), tmp_path / "CANARYNAME")
    with pytest.raises(kind) as error:
        read_frames(folder)
    assert words in one_sentence(error)


def test_missing_slices_may_be_allowed(tmp_path):
    frames = read_frames(write(_no_slice(flat(acquisition())), tmp_path / "a"), allow_gaps=True)
    assert frames.volume.array.shape[1] == 3
    assert any("One slice is missing" in warning for warning in frames.report.warnings)


def test_a_cut_off_file_is_named(tmp_path):
    folder = build.one_series(tmp_path / "a")
    path = folder / "0031.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError) as error:
        read_frames(folder)
    assert "'0031.dcm' is cut short" in one_sentence(error)


def test_a_damaged_header_is_a_missing_image_and_told(tmp_path):
    folder = write(flat(acquisition()), tmp_path / "a", shuffle=False)
    (folder / "0031.dcm").write_bytes(b"")
    frames = read_frames(folder)
    assert frames.report.dropped == {"damaged file": 1}
    assert any("1 damaged file could not be read" in warning for warning in frames.report.warnings)
    assert np.abs(frames.times_s - UNIFORM_S).max() <= 0.001


def test_two_examinations_have_to_be_told_apart(tmp_path):
    one, two = flat(acquisition()), flat(acquisition(start=build.START + timedelta(days=1)))
    study = new_uid()
    for image in two:
        image.StudyInstanceUID, image.SeriesNumber = study, 9
    folder = write([*one, *two], tmp_path / "a")
    with pytest.raises(SeriesChoiceError) as error:
        read_frames(folder)
    assert "several examinations" in str(error.value) and len(error.value.choices) == 2
    assert read_frames(folder, series=error.value.choices[0]["key"]).report.frames == 20
    assert read_frames(folder, series="9").report.frames == 20
    with pytest.raises(SeriesChoiceError, match="has no series 'liver'"):
        read_frames(folder, series="liver")


def test_a_plain_series_and_an_empty_folder_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_frames(tmp_path / "empty")
    with pytest.raises(InputError, match="was not found"):
        read_frames(tmp_path / "absent")
    with pytest.raises(InputError, match="at most one image of a place"):
        read_frames(write(flat(acquisition(UNIFORM_S[:1])), tmp_path / "plain"))
    magnetic = change(build.one_series(tmp_path / "mr"), Modality="MR")
    with pytest.raises(InputError, match="holds no CT perfusion series"):
        read_frames(magnetic)


def test_times_and_intervals_that_do_not_fit_are_refused(tmp_path):
    folder = build.one_series(tmp_path / "a")
    with pytest.raises(InputError, match="interval of 1500 s is not possible"):
        read_frames(folder, interval_s=1500)
    with pytest.raises(InputError, match="holds 19 times for 20 frames of 4 slices") as error:
        read_frames(folder, times=np.arange(19.0))
    one_sentence(error)
    with pytest.raises(InputError, match="the same time"):
        read_frames(folder, times=np.zeros(20))


def test_frames_of_two_patients_are_refused(tmp_path):
    folder = build.one_series(tmp_path / "frames")
    change(folder, 5, PatientID="SOMEBODYELSE")
    with pytest.raises(InputError, match="is of another patient") as error:
        read_frames(folder)
    assert "SOMEBODY" not in str(error.value)
