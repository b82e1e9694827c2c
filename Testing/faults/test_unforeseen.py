"""What an unforeseen fault tells, and what a crash leaves: nothing by which a patient could be known."""

from __future__ import annotations

import re
from pathlib import Path

import dicom_series
import pytest
from fault_support import SUPPORT, linux_only, neuraxis

from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.faults import LEFT_OUT, trace_of, words_of
from NeuraxisLib.process import as_user_error

FOLDER = "/data/KANARIENVOGEL Hulda/scan.dcm"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", FOLDER), "No such file or directory"),
        (ValueError("could not convert string to float: 'KANARIENVOGEL^Hulda'"),
         f"could not convert string to float: {LEFT_OUT}"),
        (RuntimeError(f"Exception in {FOLDER.replace(' ', '_')}: bad header"), f"Exception in {LEFT_OUT} bad header"),
        (KeyError("KANARIENVOGEL"), LEFT_OUT),
        (ValueError('unterminated "KANARI of Hulda'), f"unterminated {LEFT_OUT}"),
        (ValueError("can't add (3,) and (4,)"), "can't add (3,) and (4,)"),
        (ZeroDivisionError("division by zero"), "division by zero"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_words_without_what_they_quote(error, told):
    assert words_of(error) == told
    assert "KANARI" not in str(as_user_error(error)).upper() and type(error).__name__ in str(as_user_error(error))


def test_a_trace_names_places_in_the_code_and_no_values(tmp_path):
    def inner() -> None:
        raise ValueError(f"bad value 'KANARI' in {FOLDER}")

    try:
        try:
            inner()
        except ValueError as cause:
            raise RuntimeError("no good: 'Hulda'") from cause
    except RuntimeError as error:
        text = trace_of(error)
    assert not re.search("KANARI|Hulda", text) and str(Path(__file__).parent) not in text
    assert text.index("ValueError: bad value") < text.index("RuntimeError: no good")
    assert re.search(r'File "faults/test_unforeseen.py", line \d+, in inner', text)


def test_a_trace_of_causes_in_a_ring_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert trace_of(first).count("Traceback") == 2


def test_the_log_of_a_worker_that_fails_tells_no_value(client, bare, tmp_path):
    """A bug that quotes a header: the sentence, the log and the trace in it."""
    from fault_support import head

    job = client.job("threshold", {"ct": head()}, str(bare), {"fault": "quote"}, output=tmp_path / "out")
    with pytest.raises(NeuraxisError, match="unexpected fault") as error:
        client.wait(client.run(job), timeout=120)
    assert not re.search("KANARI|Hulda", str(error.value) + client.log_text)
    assert "threshold_task.py" in client.log_text and str(SUPPORT) not in client.log_text


def test_a_folder_of_damaged_images_is_named_when_it_is_listed(tmp_path):
    """All of them damaged: no list without lines, no fault of ours."""
    images = dicom_series.series(dicom_series.SPARSE_MM[:3], matrix=32, pixel_mm=7.0)
    folder = dicom_series.save(images, tmp_path / "KANARIENVOGEL")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:600])
    done = neuraxis("info", folder)
    assert done.returncode == 3 and "2 more cannot be read as DICOM" in done.stderr and "KANARI" not in done.stderr


def test_a_model_that_is_not_there_is_named_without_its_folder(scan, tmp_path):
    done = neuraxis("hemorrhage", scan, tmp_path / "out", "--model", tmp_path / "KANARI" / "none.safetensors")
    assert done.returncode == 6 and "'none.safetensors'" in done.stderr and "KANARI" not in done.stderr


@linux_only
def test_a_crash_leaves_no_image_of_the_memory(client):
    """The worker's limit for core files is zero, whatever that of its parent."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("no process may write core files here")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        client.start()
        until_ready(client)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    limits = Path(f"/proc/{client._process.pid}/limits").read_text()
    assert re.search(r"Max core file size\s+0\s", limits), limits


def until_ready(client) -> None:
    """Wait until the worker has said that it is there."""
    import time

    while client._process.pid is None:
        client.poll()
        time.sleep(0.02)
