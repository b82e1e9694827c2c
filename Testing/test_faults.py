"""Every way the hemorrhage job can go wrong: one clear sentence, a stable code, no traceback, no partial output.

The faults come in by the public doors: the command line, and the worker as Slicer drives it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dicom_series
import numpy as np
import pytest
import SimpleITK as sitk
from project_tree import ROOT
from typer.testing import CliRunner
from untrained_models import write_untrained_model

from NeuraxisLib.cli import make_app
from NeuraxisLib.errors import CancelledError, DependencyError, InputError, WorkerError
from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.run import run_case
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_client import Job, WorkerClient
from NeuraxisLib.worker_process import child_environment

SUPPORT = ROOT / "Neuraxis" / "Testing" / "worker_support"
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses limits and mounts of Linux")


# -- a scan, a model, the command line ------------------------------------------------------------------------


def head() -> Volume:
    """A head phantom with a bleed, 64 x 64 x 19 voxels of 3.4 x 3.4 x 10 mm."""
    i, j, k = (np.arange(size) for size in (64, 64, 19))
    offset = np.array([-107.1, -107.1, -90.0])
    points = np.stack(np.meshgrid(k * 10.0, j * 3.4, i * 3.4, indexing="ij")[::-1], axis=-1) + offset
    matrix = np.diag([-3.4, -3.4, 10.0, 1.0])
    matrix[:3, 3] = offset * (-1, -1, 1)
    return Volume(dicom_series.phantom_hu(points), matrix, "HU")


def changed(array: np.ndarray) -> Volume:
    """Other voxels on the phantom's grid."""
    return Volume(array, head().ijk_to_ras)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    pytest.importorskip("torch")
    return write_untrained_model(tmp_path_factory.mktemp("model") / "untrained.safetensors", size=32)


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "head.nrrd"
    write_volume(head(), path)
    return path


def neuraxis(*arguments) -> subprocess.CompletedProcess:
    """Run the command line within this process: torch is loaded once for all rows."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(make_app(), list(map(str, arguments)))
    finally:
        signal.signal(signal.SIGTERM, handler)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception  # what would have been a traceback
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def neuraxis_process(*arguments, preexec_fn=None, **environment) -> subprocess.CompletedProcess:
    """Run the command line as a process of its own, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "NeuraxisLib.cli", *map(str, arguments)],
        env={**child_environment([SUPPORT], None, 1, hide_gpu=False), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=preexec_fn,
    )


def entries(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder with its content, hidden or not."""
    files = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in files}


def assert_refused(done: subprocess.CompletedProcess, code: int, words: str) -> None:
    """One sentence of ours on stderr after the progress lines, the exit code, nothing on stdout."""
    said = [line for line in done.stderr.splitlines() if " % " not in line]
    assert len(said) == 1, done.stderr
    assert words.lower() in said[0].lower() and said[0].endswith("."), said[0]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


# -- the image ------------------------------------------------------------------------------------------------


def noise_where_inside(low: float, high: float) -> np.ndarray:
    """Noise between two values in the head, 0 around it: an MR, or a windowed picture."""
    inside = head().array > -500
    return np.where(inside, np.random.default_rng(0).uniform(low, high, inside.shape), 0)


def without_head() -> np.ndarray:
    """A table in air: a CT, but nobody on it."""
    array = np.full(head().array.shape, -1000, np.int16)
    array[:, 52:55] = 300
    return array


def thigh() -> np.ndarray:
    """A cylinder of muscle around one of bone."""
    j, i = np.meshgrid(np.arange(64) - 32, np.arange(64) - 32, indexing="ij")
    slice_hu = np.where(np.hypot(j, i) < 5, 900, np.where(np.hypot(j, i) < 22, 55, -1000))
    return np.broadcast_to(slice_hu, head().array.shape).astype(np.int16)


def with_nan() -> np.ndarray:
    array = head().array.astype(np.float32)
    array[3, 4, 5:7] = np.nan
    return array


IMAGES = {
    "MR in place of CT": (lambda: noise_where_inside(100, 1500).astype(np.int16), "not a head CT in Hounsfield units"),
    "windowed picture": (lambda: noise_where_inside(1, 255).astype(np.uint8), "not a head CT in Hounsfield units"),
    "zeros": (lambda: np.zeros((19, 64, 64), np.int16), "same value"),
    "constant": (lambda: np.full((19, 64, 64), 40, np.int16), "same value"),
    "NaN": (with_nan, "2 voxels that are not a number"),
    "nobody in view": (without_head, "no brain"),
    "another part of the body": (thigh, "no brain"),
}


@pytest.mark.parametrize("fault", IMAGES)
def test_image_that_shows_no_head_ct(fault, model, tmp_path):
    make, words = IMAGES[fault]
    write_volume(changed(make()), tmp_path / "image.nrrd")
    before = entries(tmp_path)
    assert_refused(neuraxis("hemorrhage", tmp_path / "image.nrrd", tmp_path / "a" / "out", "--model", model), 3, words)
    assert entries(tmp_path) == before


def corrupt_nifti(folder: Path) -> Path:
    write_volume(head(), folder / "scan.nii.gz")
    data = bytearray((folder / "scan.nii.gz").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    (folder / "scan.nii.gz").write_bytes(data)
    return folder / "scan.nii.gz"


def corrupt_nifti_header(folder: Path) -> Path:
    write_volume(head(), folder / "scan.nii")
    data = bytearray((folder / "scan.nii").read_bytes())
    data[40:56] = struct.pack("<8h", -5, 30000, 30000, 30000, 1, 1, 1, 1)
    (folder / "scan.nii").write_bytes(data)
    return folder / "scan.nii"


def truncated_nifti(folder: Path) -> Path:
    write_volume(head(), folder / "scan.nii.gz")
    data = gzip.decompress((folder / "scan.nii.gz").read_bytes())
    (folder / "scan.nii.gz").write_bytes(gzip.compress(data[: len(data) // 2]))
    return folder / "scan.nii.gz"


def truncated_nrrd(folder: Path) -> Path:
    write_volume(head(), folder / "scan.nrrd")
    data = (folder / "scan.nrrd").read_bytes()
    (folder / "scan.nrrd").write_bytes(data[: len(data) // 2])
    return folder / "scan.nrrd"


def two_dimensional(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(head().array[9]), str(folder / "slice.nrrd"))
    return folder / "slice.nrrd"


def four_dimensional(folder: Path) -> Path:
    array = np.stack([head().array] * 3)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(folder / "perfusion.nii.gz"))
    return folder / "perfusion.nii.gz"


def text_file(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text("This is not a scan.")
    return folder / "scan.nii.gz"


def photograph(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((40, 50), np.uint8)), str(folder / "photo.png"))
    return folder / "photo.png"


def empty_folder(folder: Path) -> Path:
    (folder / "dicom").mkdir()
    return folder / "dicom"


def dicom_of_other_modality(folder: Path) -> Path:
    images = dicom_series.series(np.arange(-90.0, 90.1, 10.0))
    for image in images:
        image.Modality = "MR"
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    return dicom_series.save(images, folder / "dicom")


def dicom(name: str) -> Callable[[Path], Path]:
    """A faulty series of dicom_series."""
    return lambda folder: getattr(dicom_series, name)(folder / "dicom")


def two_series(folder: Path) -> Path:
    for _ in range(2):
        dicom_series.save(dicom_series.series(np.arange(-90.0, 90.1, 10.0)), folder / "dicom")
    return folder / "dicom"


FILES = {
    "not an image": (text_file, 3, "scan.nii.gz"),
    "photograph": (photograph, 3, "photo.png"),
    "corrupt NIfTI": (corrupt_nifti, 3, "scan.nii.gz"),
    "corrupt NIfTI header": (corrupt_nifti_header, 3, "scan.nii"),
    "truncated NIfTI": (truncated_nifti, 3, "scan.nii.gz"),
    "truncated NRRD": (truncated_nrrd, 3, "scan.nrrd"),
    "2-D image": (two_dimensional, 3, "two-dimensional"),
    "4-D image": (four_dimensional, 3, "3 time frames"),
    "no DICOM in the folder": (empty_folder, 3, "dicom"),
    "DICOM of MR": (dicom_of_other_modality, 3, "MR"),
    "DICOM slice missing": (dicom("one_missing"), 4, "missing"),
    "DICOM file truncated": (dicom("truncated_file"), 3, "0021.dcm"),
    "two DICOM series": (two_series, 5, "series"),
}


@pytest.mark.parametrize("fault", FILES)
def test_file_that_cannot_be_measured_on(fault, model, tmp_path):
    make, code, words = FILES[fault]
    path = make(tmp_path)
    before = entries(tmp_path)
    assert_refused(neuraxis("hemorrhage", path, tmp_path / "out", "--model", model), code, words)
    assert entries(tmp_path) == before


def test_of_two_series_one_can_be_named(model, tmp_path):
    folder = two_series(tmp_path)
    choices = json.loads(neuraxis("hemorrhage", folder, tmp_path / "out", "--model", model, "--json").stdout)["choices"]
    assert len(choices) == 2
    done = neuraxis("hemorrhage", folder, tmp_path / "out", "--model", model, "--series", choices[1]["key"])
    assert done.returncode == 0 and (tmp_path / "out" / "report.html").is_file(), done.stderr


def test_a_localizer_among_the_slices_is_left_out(model, tmp_path):
    """Not a fault of the scan: the result is that of the series without its localizer."""
    measured = []
    for name in ("plain", "localizer"):
        make = dicom_series.localizer_inside if name == "localizer" else lambda f: dicom_series.save(
            dicom_series.series(), f
        )
        make(tmp_path / name)
        done = neuraxis("hemorrhage", tmp_path / name, tmp_path / f"{name} out", "--model", model, "--json")
        assert done.returncode == 0, done.stderr
        measured.append(json.loads(done.stdout)["measurements"])
    assert measured[0] == measured[1]


# -- the model ------------------------------------------------------------------------------------------------


def unreadable(good: Path, path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def pickled(good: Path, path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(3)}, path)


def cut_short(good: Path, path: Path) -> None:
    path.write_bytes(good.read_bytes()[:-1000])


def altered(good: Path, path: Path) -> None:
    data = bytearray(good.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def of_another_task(good: Path, path: Path) -> None:
    write_untrained_model(path, task="stroke")


MODELS = {
    "unreadable": (unreadable, "not a model file"),
    "pickle": (pickled, "pickle"),
    "cut short": (cut_short, "cut short"),
    "hash does not match": (altered, "damaged or was altered"),
    "of another task": (of_another_task, "made for the task 'stroke'"),
    "absent": (lambda good, path: None, "no model file"),
}


@pytest.mark.parametrize("fault", MODELS)
def test_model_that_cannot_be_used(fault, model, scan, tmp_path):
    make, words = MODELS[fault]
    make(model, tmp_path / "bad.safetensors")
    before = entries(tmp_path)
    done = neuraxis("hemorrhage", scan, tmp_path / "out", "--model", tmp_path / "bad.safetensors")
    assert_refused(done, 6, words)
    assert entries(tmp_path) == before


@pytest.mark.parametrize("package", ["torch", "safetensors", "pydicom", "jinja2"])
def test_package_that_is_absent(package, model, scan, tmp_path):
    source = dicom_series.save(dicom_series.series(), tmp_path / "dicom") if package == "pydicom" else scan
    before = entries(tmp_path)
    done = neuraxis_process("hemorrhage", source, tmp_path / "out", "--model", model, TEST_ABSENT=package)
    assert_refused(done, 8, f"'{package}' is not installed")
    assert entries(tmp_path) == before


# -- the disk -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small disk of its own at ``folder``; skips where none may be mounted."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no disk can be mounted here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@linux_only
@pytest.mark.parametrize("depth", ["out", "new/folder/out"])
def test_output_folder_that_cannot_be_written_to(depth, model, scan, tmp_path):
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:  # nothing is forbidden to root, but a read-only disk is read-only
            folder = stack.enter_context(mounted(tmp_path / "disk", "ro,size=1m"))
        else:
            folder = tmp_path / "disk"
            folder.mkdir(mode=0o555)
        done = neuraxis("hemorrhage", scan, folder / depth, "--model", model)
        assert_refused(done, 7, "could not be written")
        assert "Finding the brain" not in done.stderr  # refused before anything is computed
        assert entries(folder) == {}


@linux_only
@pytest.mark.parametrize("kilobytes", [4, 40, 120])
def test_disk_full(kilobytes, model, scan, tmp_path):
    with mounted(tmp_path / "disk", f"size={kilobytes}k") as folder:
        done = neuraxis("hemorrhage", scan, folder / "new" / "out", "--model", model)
        assert_refused(done, 7, "disk is full")
        assert entries(folder) == {}


@linux_only
@pytest.mark.parametrize("bytes_allowed", [500, 5_000, 50_000])
def test_earlier_result_survives_a_write_that_fails(bytes_allowed, model, scan, tmp_path):
    import resource

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_allowed, bytes_allowed))

    assert neuraxis("hemorrhage", scan, tmp_path / "out", "--model", model).returncode == 0
    before = entries(tmp_path)
    arguments = ("hemorrhage", scan, tmp_path / "out", "--model", model)
    done = neuraxis_process(*arguments, preexec_fn=limit_file_size)
    assert_refused(done, 7, "could not be written")
    assert entries(tmp_path) == before


# -- the process ----------------------------------------------------------------------------------------------


@pytest.fixture
def client() -> Iterator[WorkerClient]:
    made = WorkerClient(paths=[SUPPORT], threads=1)
    yield made
    made.stop()


def poll_until(client: WorkerClient, condition: Callable[[], bool], seconds: float = 120.0) -> float:
    """Poll as Slicer's timer does until the condition holds; returns the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"waited in vain; log: {client.log_text}"
        client.poll()
        time.sleep(0.01)
    return time.monotonic() - start


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("stage", ["Finding the brain", "Finding blood", "Writing the result"])
def test_worker_killed_half_way(stage, client, model, scan, tmp_path):
    killed = []

    def kill_at_stage(fraction: float, at: str) -> None:
        if at == stage and not killed:
            killed.append(os.kill(client._process.pid, signal.SIGKILL))

    job = Job("hemorrhage", {"ct": scan}, str(model), output=tmp_path / "out")
    handle = client.run(job, on_progress=kill_at_stage)
    if stage == "Writing the result":  # it may be over before the signal arrives; then the result is whole
        poll_until(client, lambda: handle.is_finished)
        assert killed and (handle.state == "failed" or (tmp_path / "out" / "result.json").is_file())
    else:
        with pytest.raises(WorkerError, match=r"killed by the system, most likely because memory ran out.*\.$"):
            client.wait(handle, timeout=120)
    if handle.state == "failed":
        assert entries(tmp_path) == {}
    client.wait(client.run(Job("hemorrhage", {"ct": scan}, str(model), output=tmp_path / "next")), timeout=120)


def test_torch_absent_in_the_worker(model, tmp_path):
    client = WorkerClient(paths=[SUPPORT], environment={**os.environ, "TEST_ABSENT": "torch"}, threads=1)
    job = client.job("hemorrhage", {"ct": head()}, str(model), output=tmp_path / "out")
    with pytest.raises(DependencyError, match=r"'torch' is not installed; .*PyTorch extension"):
        client.wait(client.run(job), timeout=120)
    client.stop()
    assert entries(tmp_path) == {}


def test_images_from_slicer_are_refused_as_files_are(client, model):
    for make, words in IMAGES.values():
        handle = client.run(client.job("hemorrhage", {"ct": changed(make())}, str(model)))
        with pytest.raises(InputError, match=words):
            client.wait(handle, timeout=120)


STAGES = [
    "Reading the image",
    "Finding the brain",
    "Preparing slices",
    "Loading the network",
    "Finding blood",
    "Measuring",
    "Writing the result",
]


def test_the_stages_are_all_known(model, scan, tmp_path):
    seen: list[str] = []
    progress = Progress(lambda fraction, stage: seen.append(stage))
    run_case("hemorrhage", {"ct": scan}, model, {}, "cpu", tmp_path / "out", progress)
    assert list(dict.fromkeys(seen)) == STAGES


@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("stage", STAGES)
def test_cancel_at_every_stage_leaves_everything_as_it_was(stage, which, model, scan, tmp_path):
    """At the first and at the last moment of each stage at which the computation asks whether to go on."""
    calls: list[str] = []
    progress = Progress(lambda fraction, at: calls.append(at))
    run_case("hemorrhage", {"ct": scan}, model, {}, "cpu", tmp_path / "out", progress)
    before = entries(tmp_path)
    at = [number for number, name in enumerate(calls) if name == stage][0 if which == "first" else -1]
    reported: list[str] = []
    progress = Progress(lambda fraction, name: reported.append(name), cancelled=lambda: len(reported) == at)
    with pytest.raises(CancelledError):
        run_case("hemorrhage", {"ct": scan}, model, {}, "cpu", tmp_path / "out", progress)
    assert len(reported) == at and entries(tmp_path) == before


@pytest.mark.parametrize("stage", ["Starting", *STAGES[:-1]])
def test_cancel_in_the_worker_within_a_second(stage, client, model, tmp_path):
    job = client.job("hemorrhage", {"ct": head()}, str(model))
    handle = client.run(job)
    order = ["Starting", *STAGES]
    poll_until(client, lambda: order.index(handle.stage) >= order.index(stage) or handle.is_finished)
    if handle.is_finished:
        pytest.skip("the run was over before it could be cancelled")
    client.cancel(handle)
    assert poll_until(client, lambda: handle.is_finished) < 1.0
    assert handle.state == "cancelled" and handle.result_folder is None
    client.release(handle)
    assert entries(client._exchange) == {}


def test_a_scan_without_fault_goes_through(model, scan, tmp_path):
    """What the rows above are measured against: nothing about scan and model is at fault."""
    done = neuraxis_process("hemorrhage", scan, tmp_path / "out", "--model", model)
    assert done.returncode == 0, done.stderr
    assert read_volume(tmp_path / "out" / "labels.seg.nrrd").array.shape == head().array.shape
