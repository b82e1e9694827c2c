"""What stands behind the page of ``neuraxis view``: folder, token, windows, reading, and what the command refuses."""

from __future__ import annotations

import importlib.util
import re
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fault_support import assert_refused, head, neuraxis
from project_tree import library

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.result import Measurement, Result, ScalarMap
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.view.case_folder import CaseFolder
from NeuraxisLib.view.gate import Gate, from_another_site, new_token
from NeuraxisLib.view.reading import NO_IMAGE, add_image, facts_of, on_equal_gaps, open_case
from NeuraxisLib.view.serving import Request, shown_host
from NeuraxisLib.view.windows import first_window, is_ct, windows_of
from NeuraxisLib.volume import Volume

# -- folder ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cases(tmp_path) -> Path:
    """A folder of cases, with something beside it that must not be reached."""
    root = tmp_path / "cases"
    for name in ("study/series", "empty", ".hidden"):
        (root / name).mkdir(parents=True)
    for name in ("b.nrrd", "A.nii.gz", "notes.txt", ".secret.nrrd"):
        (root / name).write_bytes(b"x")
    (root / "study" / "series" / "1").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "outside.nrrd").write_bytes(b"x")
    (root / "link.nrrd").symlink_to(tmp_path / "outside.nrrd")
    (root / "up").symlink_to(tmp_path)
    write_result(bleed(), root / "result", report=False)
    return root


def test_folder_lists_what_can_be_opened(cases):
    found = [(entry.name, entry.kind) for entry in CaseFolder(cases).entries()]
    assert found == [
        ("empty", "folder"), ("study", "folder"), ("result", "result"), ("A.nii.gz", "image"), ("b.nrrd", "image"),
    ]  # fmt: skip
    assert [(e.path, e.kind) for e in CaseFolder(cases).entries("study")] == [("study/series", "dicom")]


OUTSIDE = ("..", "../outside.nrrd", "link.nrrd", "up", "up/outside.nrrd", "study/../../x", "/etc")


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_outside_the_folder_is_opened(cases, path):
    with pytest.raises(InputError, match="outside the folder"):
        CaseFolder(cases).resolve(path)


def test_places_inside_are_opened_and_missing_ones_named(cases):
    folder = CaseFolder(cases)
    assert folder.resolve("study/series") == (cases / "study" / "series").resolve()
    assert folder.resolve("") == cases.resolve() and folder.path_of(cases / "study") == "study"
    with pytest.raises(InputError, match=r"'gone.nrrd' was not found.*\.$"):
        folder.resolve("gone.nrrd")


# -- gate -----------------------------------------------------------------------------------------------------


def test_gate_admits_paths_that_begin_with_the_token():
    token = new_token()
    gate = Gate(token)
    assert all(map(gate.admits, (f"/{token}/", f"/{token}/ws", f"/{token}")))
    for path in ("", "/", "/ws", f"/{token[:-1]}/", f"/{token}x/", f"/x/{token}", f"/{token.swapcase()}", "/é"):
        assert not gate.admits(path)


def test_pages_of_other_sites_may_follow_a_link_and_no_more():
    """A socket, a picture or a script of another site is refused even with the token; a bookmark is not."""
    asked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "websocket"}
    assert from_another_site(asked) and from_another_site({**asked, "Sec-Fetch-Mode": "no-cors"})
    assert not from_another_site({**asked, "Sec-Fetch-Mode": "navigate"})
    assert not from_another_site({**asked, "Sec-Fetch-Site": "same-origin"}) and not from_another_site({})


def test_tokens_are_long_and_differ():
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50 and min(map(len, tokens)) >= 32


# -- windows --------------------------------------------------------------------------------------------------


def test_head_ct_gets_the_usual_windows():
    windows = {one.name: (one.high - one.low, (one.high + one.low) / 2) for one in windows_of(head())}
    assert windows == {"Brain": (80, 40), "Stroke": (40, 40), "Subdural": (200, 75), "Bone": (2800, 600)}
    assert first_window(windows_of(head()), "stroke").name == "Stroke"
    assert first_window(windows_of(head()), "hemorrhage").name == "Brain"


def test_mr_gets_windows_of_its_own_values():
    values = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    volume = Volume(values, np.eye(4))
    assert not is_ct(volume) and is_ct(replace(volume, array=values - 900))
    automatic, bright, full = windows_of(volume)
    assert automatic.low < 30 and automatic.high > 950 and bright.high < automatic.high and full.low == 0
    flat = windows_of(replace(volume, array=np.zeros((3, 4, 5), np.uint8)))
    assert all(window.low < window.high for window in flat)


# -- reading --------------------------------------------------------------------------------------------------


def bleed(source: Volume | None = None) -> Result:
    """A result on the head phantom: a block of blood, an uncertainty map, one number."""
    source = source or head()
    labels, doubt = np.zeros(source.array.shape, np.uint8), np.zeros(source.array.shape, np.float32)
    labels[8:10, 20:30, 20:30] = 1
    doubt[9, 20:30, 20:30] = 0.5
    return Result(
        task="hemorrhage",
        source=source,
        labels=source.like(labels),
        maps={"uncertainty": ScalarMap(source.like(doubt, "bit"), "Uncertainty", (0.0, 1.0))},
        measurements=[Measurement("Total volume", 12.0, "mL", (10.0, 14.0))],
        key_slices=[9],
        warnings=["Beware."],
    )


@pytest.fixture
def study(tmp_path) -> Path:
    """A result folder beside its image."""
    write_volume(head(), tmp_path / "head.nrrd")
    write_result(bleed(), tmp_path / "result", report=False)
    return tmp_path


def test_scan_is_read_for_the_task_that_suits_it(study, tmp_path):
    case = open_case(study / "head.nrrd")
    assert (case.name, case.task, case.result, case.path) == ("head.nrrd", "hemorrhage", None, study / "head.nrrd")
    assert np.array_equal(case.volume.array, head().array)
    mr = Volume(np.arange(1000, dtype=np.float32).reshape(10, 10, 10), np.eye(4))
    write_volume(mr, tmp_path / "mr.nii.gz")
    assert open_case(tmp_path / "mr.nii.gz").task == "discs"


def test_what_reading_warns_of_is_noted(monkeypatch, study):
    warned = replace(head(), meta={"warnings": ["Two slices are missing."]})
    monkeypatch.setattr("NeuraxisLib.view.reading.read_volume", lambda path: warned)
    assert open_case(study / "head.nrrd").notes == ["Two slices are missing."]


def test_uneven_slices_are_shown_and_computed_on_equal_gaps(monkeypatch, study):
    lifted = head().origins_ras + np.array([[0, 0, 4.0 * (k > 9)] for k in range(19)])
    monkeypatch.setattr("NeuraxisLib.view.reading.read_volume", lambda path: replace(head(), slice_origins_ras=lifted))
    case = open_case(study / "head.nrrd")
    assert case.path is None and case.volume.is_uniform and case.has_image


def test_frames_are_shown_as_their_average(tmp_path):
    frames = np.stack([np.full((3, 4, 5), value, np.int16) for value in (10, 20, 60)])
    series = Volume(frames, np.eye(4), "HU", frame_times_s=np.array([0.0, 2.0, 4.0]))
    write_volume(series, tmp_path / "frames.nii.gz")
    case = open_case(tmp_path / "frames.nii.gz")
    assert case.task == "stroke" and case.volume.array.shape == (3, 4, 5) and np.all(case.volume.array == 30)


def test_result_finds_its_image_by_the_grid(study):
    other = replace(head(), ijk_to_ras=np.diag([-3.4, -3.4, 10.0, 1.0]))
    write_volume(other, study / "another_place.nrrd")
    case = open_case(study / "result")
    assert case.path == study / "head.nrrd" and "found by its grid" in case.notes[0]
    assert np.array_equal(case.volume.array, head().array) and case.result.measurements[0].value == 12.0
    assert facts_of(study / "result")["maps"]["uncertainty"]["unit"] == "bit"


def test_no_image_is_taken_where_two_would_do(study):
    write_volume(head(), study / "same.nrrd")
    case = open_case(study / "result")
    assert not case.has_image and case.notes == [NO_IMAGE] and not case.volume.array.any()
    completed = add_image(case, study / "same.nrrd")
    assert completed.has_image and completed.path == study / "same.nrrd" and completed.result is not None


def test_another_image_is_refused(study):
    write_volume(replace(head(), ijk_to_ras=np.diag([-3.4, -3.4, 10.0, 1.0])), study / "other.nrrd")
    with pytest.raises(InputError, match=r"was not made from 'other.nrrd'.*\.$"):
        open_case(study / "result", study / "other.nrrd")
    with pytest.raises(InputError, match="no result folder"):
        open_case(study / "head.nrrd", study / "other.nrrd")


def test_unequal_gaps_are_shown_equal_with_slices_in_their_place():
    z = np.array([0.0, 4.0, 8.0, 16.0, 24.0])
    matrix = np.diag([-1.0, -1.0, 6.0, 1.0])
    source = Volume(np.arange(5)[:, None, None] * np.ones((5, 6, 7)), matrix, "HU", np.array([[0, 0, at] for at in z]))
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[3] = 1
    shown = on_equal_gaps(Result("hemorrhage", source, source.like(labels), key_slices=[3, 0, 2]))
    assert shown.source.array.shape[0] == 7 and shown.source.is_uniform
    assert shown.key_slices == [4, 0, 2] and shown.labels.array[4].all() and not shown.labels.array[2].any()


# -- command --------------------------------------------------------------------------------------------------


def test_addresses_name_a_host_that_a_browser_can_reach():
    assert shown_host("127.0.0.1") == "127.0.0.1" and shown_host("::1") == "[::1]"
    assert shown_host("0.0.0.0") == shown_host("::") == socket.gethostname()


def test_a_folder_of_cases_is_listed_and_a_case_is_opened(cases):
    assert Request(cases).is_list and Request(cases / "study").is_list
    assert not any(Request(cases / name).is_list for name in ("result", "study/series", "empty", "b.nrrd"))
    assert not Request(cases, task="stroke").is_list


def test_without_the_extra_one_sentence_says_what_to_install(study, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trame_slicer" else found(name))
    assert_refused(neuraxis("view", study / "head.nrrd"), 8, "pip install 'neuraxis[view]'")


def test_missing_scan_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert_refused(neuraxis("view", tmp_path / "gone.nrrd"), 3, "'gone.nrrd' was not found")


def test_a_computer_that_cannot_draw_is_one_sentence(monkeypatch, study):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr("NeuraxisLib.cli_view._PROBE", "import os; os.abort()")
    assert_refused(neuraxis("view", study / "head.nrrd"), 8, "libosmesa6")


def test_the_page_s_style_names_classes_that_the_page_has():
    style = (library("Neuraxis") / "Resources" / "page.css").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (library("Neuraxis") / "view").glob("*.py"))
    named = set(re.findall(r"\.(nx-[\w-]+)", style)) - {f"nx-{edge}" for edge in ("left", "right", "top", "bottom")}
    assert {name for name in named if name not in code} == set()
