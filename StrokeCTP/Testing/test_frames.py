"""Perfusion frames from DICOM folders: every layout, times to the millisecond, what is left out and what is mended."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta

import ctp_dicom as build
import numpy as np
import pytest
from ctp_dicom import UNIFORM_S, acquisition, flat, write
from pydicom import dcmread

from StrokeCTPLib import frames_dicom_times as clocks
from StrokeCTPLib.frames import read_frames
from Testing.dicom_series import new_uid, one_sentence

LAYOUTS = {
    "one series": (build.one_series, UNIFORM_S, "one series with every place again and again (20 frames x 4 slices)"),
    "series per time point": (build.series_per_time_point, UNIFORM_S, "one series per time point"),
    "position-major": (build.position_major, UNIFORM_S, "one series with every place through all time points in turn"),
    "series per position": (
        lambda folder: build.position_major(folder, series_per_position=True), UNIFORM_S,
        "4 series, one per table position",
    ),
    "shuttle": (build.shuttle, build.shuttle_times(), "one series"),
    "shuttle, position-major": (
        lambda folder: build.position_major(folder, build.shuttle_times()), build.shuttle_times(), "in turn",
    ),
    "enhanced": (build.enhanced, UNIFORM_S, "an enhanced multi-frame file"),
    "enhanced shuttle": (
        lambda folder: build.enhanced(folder, build.shuttle_times()), build.shuttle_times(), "an enhanced multi-frame",
    ),
    "enhanced per time point": (build.enhanced_per_time_point, UNIFORM_S, "20 enhanced multi-frame files"),
    "toggling table": (
        lambda folder: build.one_series(folder, build.toggle_times()), build.toggle_times(), "one series",
    ),
    "variable sampling": (
        lambda folder: build.one_series(folder, build.variable_sampling()), build.variable_sampling(), "one series",
    ),
}  # fmt: skip


def check(frames, times_s, tolerance_s: float = 0.001, clock_s: float = 0.051, first_s: float = 0.0) -> None:
    """The times are the true ones, and every image lies at the time and place that it shows itself.

    The clock in the pixels shows tenths of a second; it starts at ``first_s`` where earlier frames were cut off.
    """
    assert frames.times_s.shape == times_s.shape == frames.volume.array.shape[:2]
    assert np.abs(frames.times_s - times_s).max() <= tolerance_s
    assert np.abs(build.clock_of(frames.volume.array) - first_s - times_s).max() <= clock_s
    assert np.abs(build.height_of(frames.volume.array) - np.arange(times_s.shape[1]) * build.STEP_MM).max() <= 0.5
    assert frames.volume.unit == "HU"
    assert np.allclose(frames.volume.frame_times_s, frames.times_s.mean(axis=1))
    words = " ".join(frames.report.sentences())
    assert "CANARY" not in words and "/" not in words


@pytest.mark.parametrize(("make", "times_s", "words"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_true_time_of_every_slice(tmp_path, make, times_s, words):
    frames = read_frames(make(tmp_path / "a"))
    check(frames, times_s)
    assert words in frames.report.layout
    assert frames.report.dropped == {}
    assert frames.report.slice_spread_s == pytest.approx(np.ptp(times_s, axis=1).max(), abs=0.001)


def test_geometry_is_that_of_one_frame(tmp_path):
    volume = read_frames(build.one_series(tmp_path / "a")).volume
    assert volume.spacing_mm == pytest.approx((14.0, 14.0, 5.0))
    assert np.allclose(volume.ijk_to_ras[:3, 3], [112, 112, 0])


def test_tilted_gantry_stays_sheared(tmp_path):
    tilt = np.radians(15.0)
    column = (0.0, np.cos(tilt), -np.sin(tilt))
    frames = read_frames(build.one_series(tmp_path / "a", column=column))
    check(frames, UNIFORM_S)
    assert frames.volume.is_sheared and not frames.report.warnings[:-1]
    assert frames.volume.meta["tilt_deg"] == pytest.approx(15.0, abs=0.1)


# -- clocks ------------------------------------------------------------------------------------------------------


def past_midnight(folder, change):
    images = flat(acquisition(start=datetime(2024, 2, 29, 23, 59, 50, 500000)))
    for one in images:
        change(one)
    return write(images, folder)


def _date_stands_still(one):
    one.AcquisitionDate = "20240229"


def _no_date(one):
    del one.AcquisitionDate


def _date_time_alone(one):
    one.AcquisitionDateTime = one.AcquisitionDate + one.AcquisitionTime + "+0100"
    del one.AcquisitionDate, one.AcquisitionTime


@pytest.mark.parametrize("change", [lambda one: None, _date_stands_still, _no_date, _date_time_alone])
def test_midnight(tmp_path, change):
    check(read_frames(past_midnight(tmp_path / "a", change)), UNIFORM_S)


def test_clock_words():
    assert clocks.clock_s("235959.999999") == pytest.approx(86399.999999)
    assert clocks.clock_s("10:15:30.5") == 36930.5
    assert clocks.clock_s("1015") is None and clocks.clock_s("abc") is None
    assert clocks.date_time_s("20240301000000") - clocks.date_time_s("20240229235959.5") == pytest.approx(0.5)
    assert clocks.date_time_s("20240301010000+0100") == clocks.date_time_s("20240301000000+0000")
    assert clocks.date_time_s("20241301000000") is None and clocks.date_time_s("20240301") is None
    assert clocks.over_midnight(np.array([86399.0, 1.0, 86398.0])).tolist() == [86399.0, 86401.0, 86398.0]
    assert clocks.over_midnight(np.array([10.0, 20.0])).tolist() == [10.0, 20.0]


# -- which attribute to believe ----------------------------------------------------------------------------------


def changed(folder, change, times_s=UNIFORM_S):
    """One series whose images ``change(image, t, k, seconds)`` has altered."""
    frames = acquisition(times_s)
    for t, row in enumerate(frames):
        for k, one in enumerate(row):
            change(one, t, k, float(times_s[t, k]))
    return write(flat(frames), folder)


def _same_acquisition_time(one):
    one.AcquisitionTime = "101530.25"


def test_a_date_time_is_believed_before_a_time(tmp_path):
    def change(one, t, k, seconds):
        one.AcquisitionDateTime = f"{build.START + timedelta(seconds=seconds):%Y%m%d%H%M%S.%f}"
        one.AcquisitionTime = f"{build.START + timedelta(seconds=1.1 * seconds):%H%M%S.%f}"

    frames = read_frames(changed(tmp_path / "a", change))
    check(frames, UNIFORM_S)
    assert frames.report.time_source == "AcquisitionDateTime of every image"


@pytest.mark.parametrize("word", ["FrameReferenceTime", "TriggerTime"])
def test_a_constant_time_is_passed_over_for_one_in_milliseconds(tmp_path, word):
    def change(one, t, k, seconds):
        _same_acquisition_time(one)
        setattr(one, word, 500.0 + 1000.0 * seconds)

    frames = read_frames(changed(tmp_path / "a", change))
    check(frames, UNIFORM_S)
    assert word in frames.report.time_source
    assert any("AcquisitionTime is the same in all images of a place" in note for note in frames.report.notes)


def test_content_times_are_believed_only_where_they_step_like_an_acquisition(tmp_path):
    def at_acquisition(one, t, k, seconds):
        _same_acquisition_time(one)
        build.stamp(one, "Content", build.START + timedelta(seconds=seconds))

    check(read_frames(changed(tmp_path / "a", at_acquisition)), UNIFORM_S)
    with pytest.raises(Exception) as error:
        read_frames(changed(tmp_path / "b", lambda one, *_: _same_acquisition_time(one)))
    assert "ContentDate and ContentTime is not spaced like an acquisition" in one_sentence(error)


def test_times_against_the_image_numbers_are_passed_over(tmp_path):
    scrambled = np.random.default_rng(3).permutation(len(UNIFORM_S))

    def change(one, t, k, seconds):
        build.stamp(one, "Acquisition", build.START + timedelta(seconds=1.5 * int(scrambled[t])))
        one.TriggerTime = 1000.0 * seconds

    frames = read_frames(changed(tmp_path / "a", change))
    check(frames, UNIFORM_S)
    assert any("AcquisitionTime is against the image numbers" in note for note in frames.report.notes)


@pytest.mark.parametrize("how", ["backwards", "confirmed"])
def test_wrong_image_numbers_are_mended(tmp_path, how):
    def change(one, t, k, seconds):
        scrambled = (t * 7) % 20
        one.InstanceNumber = 1 + k + 4 * (19 - t if how == "backwards" else scrambled)
        one.AcquisitionNumber = t + 1 if how == "confirmed" else 1

    frames = read_frames(changed(tmp_path / "a", change))
    check(frames, UNIFORM_S)
    assert any("image numbers" in warning for warning in frames.report.warnings)


def test_images_without_numbers_are_sorted_by_time(tmp_path):
    def change(one, t, k, seconds):
        del one.InstanceNumber

    check(read_frames(changed(tmp_path / "a", change)), UNIFORM_S)


def test_whole_seconds_are_worth_a_warning(tmp_path):
    def change(one, t, k, seconds):
        one.AcquisitionTime = f"{build.START + timedelta(seconds=seconds):%H%M%S}"

    frames = read_frames(changed(tmp_path / "a", change))
    assert np.abs(frames.times_s - UNIFORM_S).max() < 1.0
    assert any("whole seconds only" in warning for warning in frames.report.warnings)


def test_given_times_and_intervals_override_the_images(tmp_path):
    def change(one, t, k, seconds):
        _same_acquisition_time(one)
        one.AcquisitionNumber = t + 1

    folder = changed(tmp_path / "a", change)
    check(read_frames(folder, interval_s=1.5), UNIFORM_S)
    check(read_frames(folder, times=UNIFORM_S[:, 0]), UNIFORM_S)
    (tmp_path / "times.csv").write_text("frame,time_ms\n" + "".join(f"{t},{1500 * t}\n" for t in range(20)))
    frames = read_frames(folder, times=tmp_path / "times.csv")
    check(frames, UNIFORM_S)
    assert frames.report.time_source == "the times given"
    shifted = UNIFORM_S + np.arange(4) * 0.1
    assert np.allclose(read_frames(folder, times=shifted).times_s, shifted)


# -- missing and surplus images ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times_s", "t", "k"),
    [
        (UNIFORM_S, 7, 2),
        (build.variable_sampling(), 11, 3),
        (build.variable_sampling(), 12, 1),
        (build.shuttle_times(), 7, 2),
        (build.shuttle_times(), 12, 0),
        (build.toggle_times(), 9, 1),
    ],
)
def test_a_missing_image_is_interpolated_at_its_own_time(tmp_path, times_s, t, k):
    frames = acquisition(times_s)
    del frames[t][k]
    result = read_frames(write(flat(frames), tmp_path / "a"))
    check(result, times_s, tolerance_s=0.005, clock_s=0.101)  # rounded twice where interpolated
    assert any("1 missing image was interpolated" in warning for warning in result.report.warnings)


def test_every_place_may_lack_another_image(tmp_path):
    frames = acquisition()
    for t, k in ((3, 0), (8, 1), (11, 2), (16, 3)):
        frames[t][k] = None
    images = [one for one in flat(frames) if one is not None]
    result = read_frames(write(images, tmp_path / "a"))
    check(result, UNIFORM_S, clock_s=0.101)
    assert any("4 missing images were interpolated" in warning for warning in result.report.warnings)


def test_incomplete_frames_at_the_ends_are_cut_off(tmp_path):
    frames = acquisition()
    del frames[0][:2], frames[-1][3]
    result = read_frames(write(flat(frames), tmp_path / "a"))
    check(result, UNIFORM_S[:-2], first_s=1.5)
    assert result.report.dropped == {"image of an incomplete frame": 5}


def test_a_place_with_few_images_is_left_out_at_an_end(tmp_path):
    frames = acquisition()
    plain = flat(acquisition(UNIFORM_S[:1], heights_mm=[20.0], uid=frames[0][0].SeriesInstanceUID))
    result = read_frames(write([*flat(frames), *plain], tmp_path / "a"))
    check(result, UNIFORM_S)
    assert result.report.dropped == {"image of an incomplete slice place": 1}


def test_a_surplus_image_of_one_place_is_left_out(tmp_path):
    frames = acquisition(np.vstack([UNIFORM_S, UNIFORM_S[-1:] + 1.5]))
    del frames[-1][1:]
    result = read_frames(write(flat(frames), tmp_path / "a"))
    check(result, UNIFORM_S)
    assert result.report.dropped == {"surplus image of a place": 1}


# -- what does not belong ----------------------------------------------------------------------------------------

FOREIGN = {
    "thickness": {"thickness_mm": 1.5},
    "kernel": {"ConvolutionKernel": "H60f"},
    "field of view": {"pixel_mm": 10.0},
    "centre": {"origin_mm": (-100.0, -90.0)},
    "voltage": {"KVP": 120},
    "temporal average": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "AVERAGE"]},
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_reconstruction_in_the_series_is_left_out(tmp_path, foreign):
    frames = read_frames(build.with_foreign_images(tmp_path / "a", **foreign))
    check(frames, UNIFORM_S)
    assert sum(frames.report.dropped.values()) == 40


def test_copies_are_left_out(tmp_path):
    images = flat(acquisition())
    again, other = copy.deepcopy(images[9]), copy.deepcopy(images[33])
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = new_uid()
    changed_pixels = copy.deepcopy(images[50])
    changed_pixels.SOPInstanceUID = changed_pixels.file_meta.MediaStorageSOPInstanceUID = new_uid()
    changed_pixels.PixelData, changed_pixels.InstanceNumber = images[0].PixelData, 99
    frames = read_frames(write([*images, again, other, changed_pixels], tmp_path / "a"))
    check(frames, UNIFORM_S)
    assert frames.report.dropped == {
        "copied file": 1, "copied image": 1, "second image of the same place and time": 1,
    }  # fmt: skip


def test_a_second_version_of_the_whole_series_is_left_out(tmp_path):
    first, second = flat(acquisition()), flat(acquisition())
    for one in second:
        one.StudyInstanceUID, one.SeriesNumber = first[0].StudyInstanceUID, 3
        one.PixelData = first[0].PixelData
    frames = read_frames(write([*second, *first], tmp_path / "a"))
    check(frames, UNIFORM_S)
    assert frames.report.dropped == {"image of another series or reconstruction": 80}


@pytest.mark.parametrize("minutes", [-5, 3])
def test_plain_and_delayed_volumes_are_left_out(tmp_path, minutes):
    images = flat(acquisition())
    start = build.START + timedelta(minutes=minutes)
    extra = flat(acquisition(UNIFORM_S[:1] + 50.0, start=start))
    for number, one in enumerate(extra):
        one.StudyInstanceUID, one.InstanceNumber = images[0].StudyInstanceUID, number
    frames = read_frames(write([*images, *extra], tmp_path / "a"))
    check(frames, UNIFORM_S)
    assert frames.report.dropped == {"image taken before or after the perfusion": 4}


def two_reconstructions(folder):
    thick = flat(acquisition())
    times_s = np.repeat(UNIFORM_S[:, :1], 6, axis=1)
    thin = flat(acquisition(times_s, thickness_mm=1.5, heights_mm=np.arange(6) * 1.5))
    for one in thin:
        one.StudyInstanceUID, one.SeriesNumber, one.SeriesDescription = thick[0].StudyInstanceUID, 4, "CTP 1.5 H20f"
    scout = copy.deepcopy(thick[0])
    scout.ImageType, scout.SOPInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], new_uid()
    maps = flat(acquisition(UNIFORM_S[:1]))
    for one in maps:
        one.StudyInstanceUID, one.ImageType = thick[0].StudyInstanceUID, ["DERIVED", "SECONDARY", "CBF"]
    return write([*thick, *thin, scout, *maps], folder)


def test_of_two_reconstructions_the_thick_one_is_taken_unless_the_other_is_named(tmp_path):
    folder = two_reconstructions(tmp_path / "a")
    frames = read_frames(folder)
    check(frames, UNIFORM_S)
    assert frames.report.dropped == {
        "image of another series or reconstruction": 120, "derived image": 4, "localizer": 1,
    }  # fmt: skip
    assert read_frames(folder, series="4").volume.array.shape == (20, 6, 16, 16)
    assert read_frames(folder, series="ctp 1.5 h20f").volume.spacing_mm[2] == pytest.approx(1.5)


def test_bolus_monitoring_is_no_perfusion(tmp_path):
    images = flat(acquisition())
    monitor = flat(acquisition(np.arange(40.0)[:, None], start=build.START - timedelta(minutes=2), thickness_mm=10.0))
    for one in monitor:
        one.StudyInstanceUID = images[0].StudyInstanceUID
    check(read_frames(write([*monitor, *images], tmp_path / "a")), UNIFORM_S)


def test_a_file_stands_for_its_series(tmp_path):
    folder = two_reconstructions(tmp_path / "a")
    thin = next(path for path in sorted(folder.iterdir()) if dcmread(path).SeriesNumber == 4)
    assert read_frames(thin).volume.array.shape == (20, 6, 16, 16)


def test_derived_frames_are_used_with_a_warning_where_there_are_no_others(tmp_path):
    images = flat(acquisition())
    for one in images:
        one.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    frames = read_frames(write(images, tmp_path / "a"))
    check(frames, UNIFORM_S)
    assert any("computed from other images" in warning for warning in frames.report.warnings)


# -- pixels ------------------------------------------------------------------------------------------------------


def test_every_image_may_have_its_own_rescale(tmp_path):
    frames = acquisition()
    steep = acquisition(slope=0.5, intercept=-1024)
    for t, row in enumerate(frames):
        for k, one in enumerate(row):
            if (t + k) % 3 == 0:
                one.PixelData, one.RescaleSlope = steep[t][k].PixelData, 0.5
    result = read_frames(write(flat(frames), tmp_path / "a"))
    check(result, UNIFORM_S)
    assert result.volume.array.dtype == np.float32


@pytest.mark.parametrize("value", [-2000, -3024])
def test_padding_becomes_air(tmp_path, value):
    images = flat(acquisition())
    for one in images:
        stored = np.frombuffer(one.PixelData, "<i2").reshape(16, 16).copy()
        stored[:2, :2] = value + 1024
        one.PixelData = stored.tobytes()
        one.add_new("PixelPaddingValue", "SS", value + 1024)
    frames = read_frames(write(images, tmp_path / "a"))
    check(frames, UNIFORM_S)
    assert frames.volume.array.min() == -1024 and (frames.volume.array[:, :, 0, 0] == -1024).all()
    assert any("set to air" in note for note in frames.report.notes)
