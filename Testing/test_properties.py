"""Properties that hold whatever is put in: geometry through files, slices in any order, lines of the worker, writes.

Hypothesis draws the examples; the draw is the same in every run, and nothing is kept between runs.
"""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from NeuraxisLib import worker
from NeuraxisLib.atomic import atomic_write, remove_unfinished
from NeuraxisLib.batch_ledger import LEDGER_FILE, Ledger
from NeuraxisLib.errors import GeometryError, OutputError
from NeuraxisLib.exchange import read_exchange, write_exchange
from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker import Channel
from NeuraxisLib.worker_client import WorkerClient
from NeuraxisLib.worker_job import Job, RunHandle
from Testing import dicom_series

configuration.set_hypothesis_home_dir(tempfile.gettempdir())


def holds(examples: int):
    """The same examples in every run, however slow the machine."""
    return settings(
        derandomize=True, database=None, deadline=None, max_examples=examples,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


# -- geometry through files -----------------------------------------------------------------------------------

_LENGTH = st.floats(0.2, 8.0)
_ANGLE = st.floats(-180.0, 180.0)


@st.composite
def volumes(draw, shear: bool) -> Volume:
    """A small image anywhere, turned, mirrored or not, with slices shifted along the columns if sheared."""
    turn = Rotation.from_euler("xyz", [draw(_ANGLE) for _ in range(3)], degrees=True).as_matrix()
    turn[:, 2] *= draw(st.sampled_from([1, -1]))
    spacing = [draw(_LENGTH) for _ in range(3)]
    matrix = np.eye(4)
    matrix[:3, :3] = turn * spacing
    if shear:
        matrix[:3, 2] += np.tan(np.radians(draw(st.floats(3.0, 30.0)))) * spacing[2] * turn[:, 1]
    matrix[:3, 3] = [draw(st.floats(-400.0, 400.0)) for _ in range(3)]
    shape = [draw(st.integers(2, 7)) for _ in range(3)]
    kind = draw(st.sampled_from(["uint8", "int16", "int32", "float32"]))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 255, shape).astype(kind)
    return Volume(values, matrix, "HU")


def assert_same(read: Volume, written: Volume) -> None:
    """The same values, and every corner within a thousandth of a millimetre."""
    np.testing.assert_array_equal(read.array, written.array)
    assert read.array.dtype == written.array.dtype
    ends = np.array([[i, j, k, 1] for k in (0, 6) for j in (0, 6) for i in (0, 6)]).T
    assert np.abs((read.ijk_to_ras - written.ijk_to_ras) @ ends).max() < 1e-3


@holds(40)
@given(st.booleans().flatmap(lambda shear: volumes(shear)), st.sampled_from(["nrrd", "mha"]), st.booleans())
def test_nrrd_and_metaimage_keep_any_geometry(volume, suffix, compress):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.{suffix}")
        write_volume(volume, path, compress=compress)
        assert_same(read_volume(path), volume)
        assert_same(read_exchange(write_exchange(volume, Path(folder, "a.exchange.nrrd"))), volume)


@holds(40)
@given(volumes(shear=False), st.sampled_from(["nii", "nii.gz"]))
def test_nifti_keeps_any_geometry_that_it_can_hold(volume, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.{suffix}")
        write_volume(volume, path)
        assert_same(read_volume(path), volume)


@holds(25)
@given(volumes(shear=True))
def test_nifti_refuses_any_shear_and_leaves_nothing(volume):
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(GeometryError, match="tilted"):
            write_volume(volume, Path(folder, "a.nii"))
        assert list(Path(folder).iterdir()) == []


# -- slices in any order -----------------------------------------------------------------------------------------

_HEIGHTS = np.arange(-60.0, 60.1, 20.0)


@holds(12)
@given(
    st.permutations(range(len(_HEIGHTS))),
    st.lists(st.integers(1, 9), min_size=len(_HEIGHTS), max_size=len(_HEIGHTS)),
    st.tuples(*[st.floats(-25.0, 25.0)] * 3),
    st.floats(-25.0, 25.0),
)
def test_slices_are_sorted_by_place_whatever_their_names_and_numbers(order, numbers, angles, tilt):
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    images = dicom_series.series(_HEIGHTS, tilt_deg=tilt, rotation=turn, matrix=16, pixel_mm=13.6)
    with tempfile.TemporaryDirectory() as folder:
        plain = read_volume(dicom_series.save(images, Path(folder, "plain")))
        for image, number in zip(images, numbers):
            image.InstanceNumber = number
        mixed = read_volume(dicom_series.save([images[k] for k in order], Path(folder, "mixed")))
    np.testing.assert_array_equal(mixed.array, plain.array)
    np.testing.assert_array_equal(mixed.origins_ras, plain.origins_ras)
    steps = np.diff(plain.origins_ras, axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 20.0, atol=1e-3)


# -- lines between host and worker ---------------------------------------------------------------------------------

_PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=8))
_ANY = _PLAIN | st.lists(_PLAIN, max_size=2) | st.dictionaries(st.text(max_size=2), _PLAIN, max_size=2)
_EVENTS = ["progress", "done", "failed", "cancelled", "log", "exit?", "ready"]
_WORDS = ["event", "id", "fraction", "stage", "message", "code", "choices", "folder"]


def some(words: list[str], kinds: list[str], key: str) -> st.SearchStrategy[dict]:
    """An object with some of the words, often with a kind that is known and the number of the run."""
    free = st.dictionaries(st.sampled_from(words), _ANY, max_size=6)
    return st.builds(lambda found, kind, number: {"id": number, **found, key: kind}, free,
                     st.one_of(st.sampled_from(kinds), _ANY), st.one_of(st.just(1), _ANY))  # fmt: skip


@holds(60)
@given(st.lists(some(_WORDS, _EVENTS, "event"), max_size=4))
def test_whatever_a_worker_says_the_host_goes_on(events):
    ended = []
    client = WorkerClient()
    handle = RunHandle(1, Job("hemorrhage", {}, output="out"), dict.fromkeys(
        ("done", "failed", "cancelled"), lambda *arguments: ended.append(arguments)))  # fmt: skip
    handle.output, handle.state, client._current = Path("out"), "running", handle
    for event in events:
        client._handle(event)
    assert 0 <= handle.fraction <= 1 and len(ended) <= 1 and handle.is_finished == bool(ended)
    if handle.state == "failed":
        assert str(handle.error) and "\n" not in str(handle.error)


class Worker(worker.Worker):
    """One that leaves no thread behind."""

    def _report_memory(self) -> None:
        """Nothing to tell."""


@holds(40)
@given(
    st.lists(
        st.binary(max_size=30)
        | _ANY.map(lambda value: json.dumps(value).encode())
        | some(["request", "id", "task", "inputs", "output"], ["cancel", "ping", "other"], "request").map(
            lambda value: json.dumps(value).encode()
        ),
        max_size=4,
    )
)
def test_whatever_a_worker_hears_the_next_request_is_answered(lines):
    spoken, left = io.BytesIO(), []
    heard = [line.replace(b"\n", b" ") for line in lines] + [b'{"request": "ping"}', b'{"request": "quit"}']
    Worker(Channel(spoken), io.BytesIO(b"\n".join(heard) + b"\n"), lambda: left.append(1)).serve()
    kinds = [json.loads(line)["event"] for line in spoken.getvalue().splitlines()]
    assert "pong" in kinds and "ready" in kinds and left == []


# -- writes that end early -----------------------------------------------------------------------------------------


@holds(60)
@given(st.lists(st.tuples(st.binary(max_size=40), st.sampled_from(["", "error", "disk", "killed"])), max_size=8))
def test_a_file_holds_what_was_last_written_to_its_end(writes):
    with tempfile.TemporaryDirectory() as place:
        path, expected = Path(place, "a.txt"), None
        for content, fault in writes:
            if fault == "killed":  # what a process that is gone has left
                Path(place, ".0123456789ab.txt").write_bytes(content)
                continue
            try:
                with atomic_write(path) as temporary:
                    temporary.write_bytes(content)
                    if fault:
                        raise OSError(28, "No space left") if fault == "disk" else KeyError("a bug")
                expected = content
            except (OutputError, KeyError):
                assert fault
            assert (path.read_bytes() if path.exists() else None) == expected
        remove_unfinished(Path(place))
        assert [entry.name for entry in Path(place).iterdir()] == ([] if expected is None else ["a.txt"])


_RECORD = st.fixed_dictionaries(
    {"case": st.text(min_size=1, max_size=5), "state": st.sampled_from(["done", "failed"]), "folder": st.just("a")},
    optional={"error": st.text(max_size=9), "values": st.dictionaries(st.text(max_size=3), st.floats(-1e6, 1e6))},
)


@holds(60)
@given(st.lists(_RECORD, min_size=1, max_size=6, unique_by=lambda record: record["case"]), st.data())
def test_a_ledger_cut_off_anywhere_gives_the_lines_before(records, data):
    with tempfile.TemporaryDirectory() as place:
        whole = Ledger(Path(place))
        for record in records:
            whole.add(record)
        whole.close()
        path = Path(place, LEDGER_FILE)
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        again = Ledger(Path(place))
        before = content[:cut].count(b"\n") + (content[cut : cut + 1] == b"\n")  # a line that lacks its end alone
        assert list(again.records.values()) == records[:before]
        again.add({**records[-1], "case": "new one"})
        again.close()
        last = Ledger(Path(place))
        assert list(last.records) == [record["case"] for record in records[:before]] + ["new one"]
        last.close()
