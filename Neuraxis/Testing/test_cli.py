"""The command line as a user meets it: a process with stdout, stderr and an exit code."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__, cli, cli_process
from NeuraxisLib.cli_batch import SOME_FAILED
from NeuraxisLib.files import write_volume
from NeuraxisLib.result import Measurement
from NeuraxisLib.result_folder import read_result
from NeuraxisLib.volume import Volume
from NeuraxisLib.worker_process import child_environment

SUPPORT = Path(__file__).resolve().parent / "worker_support"
sys.path.append(str(SUPPORT))
from bare_models import write_bare_model  # noqa: E402


def neuraxis(*arguments, **environment) -> subprocess.CompletedProcess:
    """Run the command line with the test task in it."""
    return subprocess.run(
        [sys.executable, "-m", "NeuraxisLib.cli", *map(str, arguments)],
        env={**child_environment([SUPPORT], None, 1, hide_gpu=False), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def model(tmp_path) -> Path:
    return write_bare_model(tmp_path / "bright.safetensors")


@pytest.fixture
def scan(tmp_path) -> Path:
    """4 slices of 5 mm with 20 bright voxels of 0.72 x 0.72 mm: 0.05184 mL."""
    array = np.zeros((4, 8, 9), np.int16)
    array[1:3, 2:4, 2:7] = 100
    write_volume(Volume(array, np.diag([-0.72, -0.72, 5, 1]), "HU"), tmp_path / "scan.nrrd")
    return tmp_path / "scan.nrrd"


def test_a_scan_gives_a_result_folder_and_the_headline(scan, model, tmp_path):
    done = neuraxis("threshold", scan, tmp_path / "out", "--model", model)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Total volume: 0.0518 mL (0.0467 to 0.057)"
    assert lines[1] == "Least certain slices: 2 of 4"
    assert lines[2:] == [f"Report: {tmp_path / 'out' / 'report.html'}", RESEARCH_USE_NOTICE]
    stages = [line.partition(" % ")[2] for line in done.stderr.splitlines() if " % " in line]
    assert stages == ["Reading the image", "Preparing", "Computing", "Measuring", "Writing the result"]
    result = read_result(tmp_path / "out")
    assert result.measurements[0].value == pytest.approx(0.05184)
    assert int(result.labels.array.sum()) == 20
    assert not list(tmp_path.glob(".*"))


def test_a_series_with_a_missing_slice_is_measured_only_on_request_and_with_a_warning(model, tmp_path):
    from Testing.dicom_series import one_missing

    folder = one_missing(tmp_path / "series")
    arguments = ("threshold", folder, tmp_path / "out", "--model", model)
    refused = neuraxis(*arguments)
    assert refused.returncode == 4 and "--allow-gaps" in refused.stderr and not (tmp_path / "out").exists()
    done = neuraxis(*arguments, "--allow-gaps")
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("Note: ") and "missing" in line for line in done.stdout.splitlines())
    assert read_result(tmp_path / "out").warnings


def test_options_come_from_the_task(scan, model, tmp_path):
    arguments = ("threshold", scan, tmp_path / "out", "--model", model, "--json", "--threads", 2, "--device", "cpu")
    done = neuraxis(*arguments, "--threshold-hu", 150)
    record = json.loads(done.stdout)
    assert record["status"] == "done" and record["measurements"][0]["value"] == 0
    assert record["provenance"] | {"process": 0} == {
        "process": 0, "model": "bright", "device": "cpu", "threads": "2", "visible_gpus": "-1",
    }  # fmt: skip
    done = neuraxis(*arguments, "--threshold-hu", 150, "--no-keep-empty")
    assert done.returncode == 3 and "no voxel above the threshold" in done.stderr
    assert json.loads(done.stdout)["code"] == "input"
    assert json.loads((tmp_path / "out" / "result.json").read_text())["measurements"][0]["value"] == 0


def test_an_earlier_result_is_replaced_and_other_folders_are_refused(scan, model, tmp_path):
    for threshold, voxels in ((60, 20), (-1, 288)):
        done = neuraxis("threshold", scan, tmp_path / "out", "--model", model, f"--threshold-hu={threshold}")
        assert done.returncode == 0, done.stderr
        assert int(read_result(tmp_path / "out").labels.array.sum()) == voxels
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = neuraxis("threshold", scan, tmp_path / "mine", "--model", model)
    assert done.returncode == 7 and "something else than an earlier result" in done.stderr
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "code", "pattern"),
    [
        (["threshold"], 2, "Missing argument"),
        (["nothing"], 2, "No such command"),
        (["threshold", "SCAN", "OUT", "--steps", "many"], 2, "--steps"),
        (["threshold", "NOWHERE", "OUT", "--model", "MODEL"], 3, "was not found"),
        (["threshold", "SCAN", "OUT", "--model", "MODEL", "--device", "abacus"], 3, "no device 'abacus'"),
        (["threshold", "SCAN", "OUT", "--model", "NOWHERE.safetensors"], 6, "no model file"),
        (["threshold", "SCAN", "OUT"], 6, "No model for the task 'threshold'"),
        (["threshold", "SCAN", "MODEL", "--model", "MODEL"], 7, "is a file"),
        (["threshold", "SCAN", "OUT", "--model", "MODEL", "--fault", "no package"], 8, "is not installed"),
        (["threshold", "SCAN", "OUT", "--model", "MODEL", "--fault", "memory"], 9, "Memory ran out"),
        (["threshold", "SCAN", "OUT", "--model", "MODEL", "--fault", "bug"], 1, "ZeroDivisionError"),
        (["info", "NOWHERE"], 3, "was not found"),
        (["models", "--task", "nothing"], 3, "no task 'nothing'"),
    ],
)
def test_exit_codes(scan, model, tmp_path, arguments, code, pattern):
    places = {"SCAN": scan, "MODEL": model, "OUT": tmp_path / "out", "NOWHERE": tmp_path / "nowhere"}
    done = neuraxis(*(places.get(word, word) for word in arguments), XDG_DATA_HOME=str(tmp_path))
    assert done.returncode == code and pattern in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def heed_signals() -> None:
    """In the child: whoever runs the tests in the background may have had Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize(
    ("sent", "code", "sentence"),
    [
        (signal.SIGINT, 130, "Cancelled; nothing was written."),
        (signal.SIGTERM, 143, "Stopped by the system; nothing was written."),
    ],
)
@pytest.mark.parametrize("stage", ["Computing", "Writing the result"])
def test_interruption_leaves_nothing(scan, model, tmp_path, sent, code, sentence, stage):
    slow = {"TEST_SLOW_CALL": "os.fsync"} if stage == "Writing the result" else {}
    command = [sys.executable, "-m", "NeuraxisLib.cli", "threshold", scan, tmp_path / "out", "--model", model]
    command += ["--slow-stage", "Computing"] if not slow else []
    environment = {**child_environment([SUPPORT], None, 1, hide_gpu=False), **slow}
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, preexec_fn=heed_signals, **pipes) as run:
        for line in run.stderr:
            if stage in line:
                break
        time.sleep(0.3)
        run.send_signal(sent)
        rest, printed = run.stderr.read(), run.stdout.read()
        assert run.wait(10) == code
    assert rest.splitlines()[-1] == sentence and "Traceback" not in rest and printed == ""
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_interruption_while_a_text_is_run_keeps_the_exit_status():
    """As in the middle of an import, where dataclasses are made: Python would end by the signal."""
    code = """
import os, signal, time, typer
from NeuraxisLib.cli_process import faults_reported, prepare_process

def command():
    with faults_reported():
        prepare_process(None, hide_gpu=True)
        exec("os.kill(os.getpid(), signal.SIGINT); time.sleep(9)")

typer.run(command)
"""
    environment = child_environment([SUPPORT], None, 1, hide_gpu=False)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False,
        preexec_fn=heed_signals,
    )  # fmt: skip
    assert done.returncode == 130 and done.stderr == "Cancelled; nothing was written.\n"


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_what_a_killed_run_left_goes_with_the_next_run(scan, model, tmp_path):
    command = [sys.executable, "-m", "NeuraxisLib.cli", "threshold", scan, tmp_path / "out", "--model", model]
    environment = {**child_environment([SUPPORT], None, 1, hide_gpu=False), "TEST_SLOW_CALL": "os.fsync"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as run:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".out.*.partial")) and time.monotonic() < deadline:
            time.sleep(0.02)
        run.kill()
    assert list(tmp_path.glob(".out.*.partial")) and not (tmp_path / "out").exists()
    assert neuraxis("threshold", scan, tmp_path / "out", "--model", model).returncode == 0
    assert not list(tmp_path.glob(".*"))


def test_models_lists_installed_models_with_their_cards(tmp_path):
    folder = tmp_path / "Neuraxis" / "Models"
    folder.mkdir(parents=True)
    write_bare_model(folder / "mine.safetensors")
    write_bare_model(folder / "other.safetensors", task="another")
    done = neuraxis("models", "--task", "threshold", XDG_DATA_HOME=str(tmp_path))
    assert done.stdout.splitlines()[0] == "mine" and "other" not in done.stdout
    for fact in ("Bright voxels", "threshold (width 1)", "Apache-2.0", "For tests only.", "dice"):
        assert fact in done.stdout
    records = json.loads(neuraxis("models", "--task", "threshold", "--json", XDG_DATA_HOME=str(tmp_path)).stdout)
    assert [record["name"] for record in records] == ["mine"] and records[0]["scores"] == {"dice": 0.5}


def test_cards_on_the_command_line_tell_scores_and_what_taught_the_model():
    words = neuraxis("models", "--task", "hemorrhage").stdout
    assert re.search(r"score: planted scans mean dice +0\.\d+\n", words)
    assert re.search(r"trained on +Bleeds planted into ", words)


@pytest.mark.skipif(os.name == "nt", reason="no such pipes")
def test_a_reader_that_has_enough_of_the_output_is_no_fault():
    command = [sys.executable, "-c", "from NeuraxisLib.cli import main; main()", "models", "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    environment = child_environment([SUPPORT], None, 1, hide_gpu=False)
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 141 and done.stderr == ""


def test_a_model_is_found_by_its_name(scan, tmp_path):
    folder = tmp_path / "Neuraxis" / "Models"
    folder.mkdir(parents=True)
    write_bare_model(folder / "file.safetensors", name="second")
    done = neuraxis("threshold", scan, tmp_path / "out", "--model", "second", "--json", XDG_DATA_HOME=str(tmp_path))
    assert json.loads(done.stdout)["provenance"]["model"] == "second"


def test_info_tells_the_geometry(tmp_path):
    tilt = np.tan(np.radians(20)) * 5
    matrix = np.array([[-0.5, 0, 0, 0], [0, -0.6, tilt, 0], [0, 0, 5, 0], [0, 0, 0, 1.0]])
    write_volume(Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), matrix, "HU"), tmp_path / "tilted.nrrd")
    facts = json.loads(neuraxis("info", tmp_path / "tilted.nrrd", "--json").stdout)
    assert facts["size"] == [5, 4, 3] and facts["voxel_mm"] == [0.5, 0.6, 5.0]
    assert facts["shear_degrees"] == 20.0 and facts["axes"] == "LPS" and facts["unit"] == "HU"
    assert facts["value_range"] == [0, 59]
    text = neuraxis("info", tmp_path / "tilted.nrrd").stdout
    assert "0.5 x 0.6 x 5.0" in text and "shear degrees" in text


def test_info_lists_the_series_of_a_dicom_folder(shared_data):
    done = neuraxis("info", shared_data / "dicom" / "ge_head_tilted")
    head, *rows = done.stdout.splitlines()
    assert head.split()[:3] == ["key", "number", "modality"] and len(rows) == 1 and "28" in rows[0].split()
    key = rows[0].split()[0]
    facts = json.loads(neuraxis("info", shared_data / "dicom" / "ge_head_tilted", "--series", key, "--json").stdout)
    assert facts["size"] == [512, 512, 28] and facts["modality"] == "CT"


def test_version_and_help():
    assert neuraxis("--version").stdout.strip() == f"neuraxis {__version__}"
    text = neuraxis("--help").stdout
    assert all(word in text for word in ("hemorrhage", "threshold", "models", "info"))
    options = neuraxis("threshold", "--help").stdout
    assert "--threshold-hu" in options and "Voxels above this are marked." in options and "--no-keep-empty" in options


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['neuraxis', 'hemorrhage', '--help']\n"
        "from NeuraxisLib.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'scipy', 'skimage', 'SimpleITK', 'matplotlib', 'pydicom')\n"
        "print('loaded:', [name for name in heavy if name in sys.modules])"
    )
    environment = child_environment([SUPPORT], None, 1, hide_gpu=False)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stderr


def test_the_table_of_exit_codes_is_the_one_in_use():
    documented = [int(line.split()[0]) for line in cli.__doc__.splitlines() if line[:1].isdigit()]
    assert documented == sorted([0, 1, 2, SOME_FAILED, 141, *cli_process.EXIT_CODES.values()])
    errors = Path(cli.__file__).with_name("errors.py").read_text()
    codes = {
        node.value.value
        for node in ast.walk(ast.parse(errors))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code"
    }
    assert codes - {"error"} == set(cli_process.EXIT_CODES)


@pytest.mark.parametrize(
    ("measurement", "text"),
    [
        (Measurement("Total volume", 12.345, "mL", (11.0, 1234.5), "Hemorrhage"), "Total volume: 12.3 mL (11 to 1234)"),
        (Measurement("Largest diameter", None, "mm"), "Largest diameter: undefined"),
        (Measurement("Slices touched", 12.0, "slices"), "Slices touched: 12"),
        (Measurement("Bleeds", 2.0, ""), "Bleeds: 2"),
    ],
)
def test_measurements_in_words(measurement, text):
    assert cli.in_words(measurement, with_segment=False) == text
