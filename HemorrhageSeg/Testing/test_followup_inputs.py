"""The two scans of a follow-up as they are read: times and patients from DICOM, results, label maps; command line."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from followup_heads import Ball, bundled, points_ras, time_point

sys.path.append(str(Path(__file__).resolve().parents[2] / "Testing"))
import dicom_series
from fault_support import neuraxis

from HemorrhageSegLib.followup_inputs import moment_of, read_time_point
from HemorrhageSegLib.followup_task import TASK, FollowUpOptions
from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.slice_view import colour_map, css_ramp
from NeuraxisLib.task import TASKS, Progress, get_task
from NeuraxisLib.volume import Volume


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A head scanned twice without moving (``a.nrrd``, ``b.nrrd``), outlined; results ``ra`` and ``rb``."""
    folder = tmp_path_factory.mktemp("followup")
    head, brain = bundled()
    centre = points_ras(head, brain).mean(axis=0)
    for name, radius in (("a", 10.0), ("b", 14.0)):
        point = time_point(head, brain, Ball(centre, radius))
        write_volume(point.volume, folder / f"{name}.nrrd")
        write_volume(point.result.labels, folder / f"{name}_labels.nrrd")
        write_result(point.result, folder / f"r{name}", report=False)
    return folder


def series(folder: Path, **elements) -> Path:
    """A small DICOM series of a phantom with these elements."""
    saved = dicom_series.save(dicom_series.series(dicom_series.SPARSE_MM), folder)
    return dicom_series.change(saved, **elements)


# -- DICOM ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts, moment",
    [
        ({"AcquisitionDateTime": "20260301101530.250000+0100", "StudyDate": "20200101"}, (2026, 3, 1, 10, 15, 30)),
        ({"AcquisitionDate": "20260301", "AcquisitionTime": "101530.5"}, (2026, 3, 1, 10, 15, 30)),
        ({"AcquisitionDate": "20260301", "SeriesDate": "20260302", "SeriesTime": "0915"}, (2026, 3, 2, 9, 15, 0)),
        ({"StudyDate": "2026.03.01", "StudyTime": "10:15:30"}, (2026, 3, 1, 10, 15, 30)),
        ({"AcquisitionDateTime": "99999999999999", "StudyDate": "20260301", "StudyTime": "101530"},
         (2026, 3, 1, 10, 15, 30)),
        ({"StudyDate": "20260301"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_moment_from_dicom(facts, moment):
    assert moment_of(facts) == (None if moment is None else datetime(*moment))


def test_dicom_series_tells_when_and_whose_but_the_volume_does_not(tmp_path):
    first = series(tmp_path / "a", AcquisitionDate="20260301", AcquisitionTime="101500")
    second = series(tmp_path / "b", AcquisitionDate="20260302", AcquisitionTime="094500", PatientID="SOMEONE ELSE")
    one, other = read_time_point(first), read_time_point(second)
    assert (other.moment - one.moment).total_seconds() == 23.5 * 3600
    assert one.patient and other.patient and one.patient != other.patient
    assert one.patient == read_time_point(first).patient
    said = json.dumps([one.volume.meta, one.patient], default=str)
    assert dicom_series.CANARY not in said and "20260301" not in said


def test_no_id_is_no_patient(tmp_path):
    assert read_time_point(series(tmp_path / "a", PatientID="")).patient == ""


def test_other_kinds_of_files_know_neither(files):
    point = read_time_point(files / "a.nrrd")
    assert (point.moment, point.patient, point.result) == (None, "", None) and point.volume.unit == "HU"


# -- results --------------------------------------------------------------------------------------------------


def test_result_folder_lies_on_the_scan(files):
    point = read_time_point(files / "a.nrrd", files / "ra")
    assert point.result.source is point.volume and len(point.result_sha256) == 64
    assert point.result.labels.array.sum() > 0 and "brain" in point.result.maps


def test_result_of_another_image_is_refused(files, tmp_path):
    head, _ = bundled()
    matrix = head.ijk_to_ras.copy()
    matrix[0, 3] += 1.0
    write_volume(Volume(head.array, matrix, "HU"), tmp_path / "other.nrrd")
    with pytest.raises(GeometryError, match="'ra' was made from another image"):
        read_time_point(tmp_path / "other.nrrd", files / "ra")


def test_follow_up_is_no_result_to_follow_up(files, tmp_path):
    point = read_time_point(files / "a.nrrd", files / "ra")
    folder = write_result(replace(point.result, task="followup"), tmp_path / "x", report=False)
    with pytest.raises(InputError, match="no result of the hemorrhage task"):
        read_time_point(files / "a.nrrd", folder)


def test_image_that_is_no_label_map_is_refused(files):
    with pytest.raises(InputError, match="no label map"):
        read_time_point(files / "a.nrrd", files / "b.nrrd")


def test_hash_is_of_voxels_and_place(files):
    one, same = read_time_point(files / "a.nrrd"), read_time_point(files / "a.nrrd")
    moved = one.volume.ijk_to_ras + np.eye(4, k=3)
    assert one.sha256 == same.sha256
    assert one.sha256 != replace(one, volume=replace(one.volume, ijk_to_ras=moved)).sha256


# -- the task and the command line ----------------------------------------------------------------------------


def test_task_is_found_by_name_but_is_no_choice_for_one_scan():
    assert get_task("followup") is TASK and "followup" not in TASKS
    assert TASK.reader("baseline") is not None and FollowUpOptions().hours_between < 0


def test_command_line_on_two_results(files, tmp_path):
    scans = ["--baseline-scan", files / "a.nrrd", "--later-scan", files / "b.nrrd"]
    done = neuraxis("followup", files / "ra", files / "rb", tmp_path / "out", *scans,
                    "--hours", "5", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    numbers = {(m["name"], m["segment"]): m for m in said["measurements"]}
    balls = [Ball(np.zeros(3), radius).ml for radius in (10.0, 14.0)]
    assert numbers["Change", ""]["value"] == pytest.approx(balls[1] - balls[0], rel=0.05)
    assert numbers["Change", ""]["interval"] is not None and numbers["Time between the scans", ""]["value"] == 5
    assert said["provenance"]["registration"]["shift_mm"] < 0.2
    assert len(said["provenance"]["earlier"]["result_sha256"]) == 64
    assert (tmp_path / "out" / "report.html").is_file()
    assert str(files) not in done.stdout + (tmp_path / "out" / "result.json").read_text(encoding="utf-8")


@pytest.mark.slow
def test_command_line_on_label_maps_has_no_interval(files, tmp_path):
    scans = ["--baseline-scan", files / "a.nrrd", "--later-scan", files / "b.nrrd"]
    done = neuraxis("followup", files / "a_labels.nrrd", files / "b_labels.nrrd", tmp_path / "out", *scans)
    assert done.returncode == 0, done.stderr
    assert "has no interval" in done.stdout and "yes by the measured volumes." in done.stdout


@pytest.mark.parametrize(
    "arguments, sentence, code",
    [
        (["ra", "b.nrrd"], "does not hold the scan it was made from; name it with --baseline-scan.", 3),
        (["a.nrrd", "rb"], "name it with --later-scan.", 3),
        (["missing.nrrd", "b.nrrd"], "was not found", 3),
    ],
)
def test_command_line_refuses_in_a_sentence(files, tmp_path, arguments, sentence, code):
    done = neuraxis("followup", *(files / name for name in arguments), tmp_path / "out")
    assert done.returncode == code and sentence in done.stderr and not (tmp_path / "out").exists()


def test_command_line_refuses_another_patient_and_the_wrong_order(tmp_path):
    first = series(tmp_path / "a", StudyDate="20260301", StudyTime="101500")
    second = series(tmp_path / "b", StudyDate="20260228", StudyTime="101500")
    done = neuraxis("followup", first, second, tmp_path / "out")
    assert done.returncode == 3 and "24.0 hours before the earlier one; exchange them." in done.stderr
    other = series(tmp_path / "c", StudyDate="20260302", StudyTime="101500", PatientID="SOMEONE ELSE")
    done = neuraxis("followup", first, other, tmp_path / "out")
    assert done.returncode == 3 and "different patient ids" in done.stderr


@pytest.mark.slow
def test_through_the_real_worker(files, tmp_path):
    from NeuraxisLib.files import read_volume
    from NeuraxisLib.worker_client import WorkerClient

    client, seen = WorkerClient(threads=1), []
    options = {"baseline_result": str(files / "ra"), "later_result": str(files / "rb")}
    scans = {name: read_volume(files / f"{file}.nrrd") for name, file in (("baseline", "a"), ("later", "b"))}
    try:
        handle = client.run(client.job("followup", scans, "", options, "cpu"), lambda *step: seen.append(step[1]))
        client.wait(handle, 300)
        found = handle.read_result()
        client.release(handle)
    finally:
        client.stop()
    assert found.task == "followup" and "Aligning the two heads" in seen
    assert (files / "ra" / "result.json").is_file(), "results that a run only reads are not released with it"


# -- the report's second scan ---------------------------------------------------------------------------------


def test_map_in_hu_is_drawn_as_a_grey_picture():
    from NeuraxisLib.result import ScalarMap

    volume = Volume(np.array([[[0, 40, 80, 200]]], np.float32), np.eye(4), "HU")
    scan = ScalarMap(volume, "Later scan", (0.0, 80.0))
    assert colour_map(volume.array[0], scan)[0].tolist() == [[v, v, v, 255] for v in (0, 128, 255, 255)]
    assert "#000" in css_ramp(scan)
    heat = ScalarMap(volume.like(volume.array), "Entropy", (0.0, 80.0))
    assert colour_map(volume.array[0], heat)[0, 0, 3] == 0 and "#000" not in css_ramp(heat)


def test_change_that_may_be_none_has_no_scale_in_the_report():
    from NeuraxisLib.report import _interval_scale
    from NeuraxisLib.result import Measurement

    assert _interval_scale(Measurement("Change", 1.0, "mL", (-2.0, 4.0))) is None
    assert _interval_scale(Measurement("Change", 2.0, "mL", (1.0, 4.0)))["low"] == pytest.approx(20.0)


def test_cancel_while_reading(files):
    from NeuraxisLib.errors import CancelledError

    with pytest.raises(CancelledError):
        read_time_point(files / "a.nrrd", progress=Progress(cancelled=lambda: True))
