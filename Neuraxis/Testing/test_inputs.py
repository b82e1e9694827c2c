"""Tasks with inputs of their own kind, optional inputs and no model: through the command line and the worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.run import task_options
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_client import WorkerClient
from NeuraxisLib.worker_job import Job
from NeuraxisLib.worker_process import child_environment

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from frames_task import TASK  # noqa: E402

GRID = np.diag([-2.0, -2.0, 5.0, 1.0])


def neuraxis(*arguments) -> subprocess.CompletedProcess:
    """Run the command line with the test tasks in it."""
    return subprocess.run(
        [sys.executable, "-m", "NeuraxisLib.cli", *map(str, arguments)],
        env=child_environment([SUPPORT], None, 1, hide_gpu=False),
        capture_output=True,
        text=True,
        timeout=120,
    )


def frames_array() -> np.ndarray:
    """5 frames of 3 slices; frame t holds t everywhere and 10 t in the first two columns."""
    array = np.zeros((5, 3, 6, 7), np.int16) + np.arange(5, dtype=np.int16)[:, None, None, None]
    array[..., :2] *= 10
    return array


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """The frames as 4-D NIfTI and a mask of the first two columns."""
    write_volume(Volume(frames_array(), GRID, "HU", frame_times_s=np.arange(5.0)), tmp_path / "frames.nii.gz")
    mask = np.zeros((3, 6, 7), np.uint8)
    mask[..., :2] = 1
    write_volume(Volume(mask, GRID), tmp_path / "mask.nrrd")
    return tmp_path / "frames.nii.gz", tmp_path / "mask.nrrd"


def test_a_task_reads_its_own_kind_of_input_and_runs_without_a_model(files, tmp_path):
    done = neuraxis("frames", files[0], tmp_path / "out", "--interval-s", 2.5, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["provenance"] == {"model": None, "limit": None, "times_of_slices": None}
    result = read_result(tmp_path / "out")
    (curve,) = result.curves["means"].curves
    assert curve.x == (0.0, 2.5, 5.0, 7.5, 10.0)
    assert curve.y == pytest.approx([t * (2 * 10 + 5) / 7 for t in range(5)])


def test_an_optional_input_is_an_option(files, tmp_path):
    done = neuraxis("frames", files[0], tmp_path / "out", "--mask", files[1], "--limit", 4)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Largest mean: 40 HU")
    assert read_result(tmp_path / "out").provenance["limit"] == 4
    page = neuraxis("frames", "--help").stdout
    assert "--mask" in page and "no network is used" in page and "a 4-D series" in page


def test_what_may_not_be_missing_is_named(files, tmp_path):
    with WorkerClientOf() as client:
        handle = client.run(Job("frames", {"mask": files[1]}))
        with pytest.raises(InputError, match=r"takes frames, mask \(optional\), but got mask"):
            client.wait(handle, 60)


def test_times_of_every_slice_go_through_the_worker(files):
    times = np.arange(5.0)[:, None] * 1.5 + np.array([0.0, 0.4, 0.8])
    sent = Volume(frames_array(), GRID, "HU", frame_times_s=times)
    with WorkerClientOf() as client:
        handle = client.run(client.job("frames", {"frames": sent, "mask": files[1]}))
        result = read_result(client.wait(handle, 60))
        assert files[1].is_file() and handle.job.inputs["mask"] == files[1]
        client.release(handle)
        assert files[1].is_file()  # a user's file is not ours to remove
    assert result.provenance["times_of_slices"] == times.ravel().tolist()
    assert result.curves["means"].curves[0].x == pytest.approx(times.mean(axis=1))
    assert result.points[0].position_ras_mm == (0.0, 0.0, 0.0)


class WorkerClientOf:
    """A worker with the test tasks, ended with the block."""

    def __enter__(self) -> WorkerClient:
        self._client = WorkerClient(paths=[SUPPORT], threads=1)
        return self._client

    def __exit__(self, *_) -> None:
        self._client.stop()


@pytest.mark.parametrize("given, limit", [(3, 3), ("3", 3), (None, None), ("", None)])
def test_an_option_may_be_unknown(given, limit):
    assert task_options(TASK, {"limit": given}).limit == limit


def test_an_option_that_may_be_unknown_is_checked_all_the_same():
    with pytest.raises(InputError, match="'limit' takes a value of type int"):
        task_options(TASK, {"limit": "many"})
