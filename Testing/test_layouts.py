"""The libraries work from every layout they are shipped in: Slicer's one folder of modules, and the pip package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from project_tree import ROOT, files_in, installed_files, library, module_names

MODULES = module_names()
#: Run in a bare interpreter; prints where the libraries were found and what they read from their resources.
PROBE = """
import json, sys
from pathlib import Path
import HemorrhageSegLib, NeuraxisLib
from NeuraxisLib.files import read_volume
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.task import get_task
task = get_task("hemorrhage")
scan = read_volume(task.resources / "SampleData" / "head_ct_hemorrhage.nrrd")
print(json.dumps({
    "places": [NeuraxisLib.__file__, HemorrhageSegLib.__file__],
    "labels": len(LabelTable.read(task.resources / "labels.csv")),
    "models": sorted(path.name for path in (task.resources / "Models").glob("*.safetensors")),
    "shape": scan.array.shape,
    "torch": "torch" in sys.modules,
}))
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python in a folder whose packages win over any installed ones."""
    bare = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); sys.argv.pop(0); "
    if arguments[0] == "-m":
        code, rest = bare + "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)", arguments[1:]
    else:
        code, rest = f"import sys; sys.path.insert(0, sys.argv[1])\n{arguments[1]}", ()
    command = [sys.executable, "-I", "-c", code, str(folder), *rest]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def check_probe(folder: Path) -> None:
    """The probe finds the libraries and their resources in this folder and nowhere else."""
    done = run(folder, "-c", PROBE)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert all(Path(place).is_relative_to(folder.resolve()) for place in seen["places"])
    assert seen["labels"] > 0 and seen["models"]
    assert seen["shape"] == [29, 325, 325]
    assert not seen["torch"]


@pytest.fixture(scope="module")
def slicer_folder(tmp_path_factory) -> Path:
    """One folder with everything that CMake installs, as Slicer lays it out."""
    folder = tmp_path_factory.mktemp("qt-scripted-modules").resolve()
    for module in MODULES:
        for place, source in installed_files(module).items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / place)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that pip would install, built from a copy of the tree."""
    copy = tmp_path_factory.mktemp("source") / "neuraxis"
    ignore = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "demo-output", "runs")
    shutil.copytree(ROOT, copy, ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next((copy / "dist").glob("neuraxis-*.whl"))


def test_slicer_layout_reads_its_resources(slicer_folder):
    check_probe(slicer_folder)


def test_slicer_layout_answers_on_the_command_line(slicer_folder):
    done = run(slicer_folder, "-m", "NeuraxisLib.cli", "--help")
    assert done.returncode == 0, done.stderr
    assert "hemorrhage" in done.stdout


@pytest.mark.slow
def test_wheel_holds_the_libraries_with_their_resources_and_no_tests(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {p.relative_to(ROOT / m).as_posix() for m in MODULES for p in files_in(library(m))}
    training = (path for path in files_in(ROOT / "Training") if path.suffix in (".py", ".toml", ".jinja"))
    expected |= {path.relative_to(ROOT).as_posix() for path in files_in(ROOT / "Training" / "SampleAnatomy")}
    expected |= {path.relative_to(ROOT).as_posix() for path in training}
    assert names == expected


@pytest.mark.slow
def test_wheel_works_where_it_is_unpacked(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    check_probe(tmp_path)
    entry = next(tmp_path.glob("*.dist-info/entry_points.txt")).read_text()
    assert "neuraxis = NeuraxisLib.cli:main" in entry


@pytest.mark.slow
def test_slicer_layout_segments_the_bundled_scan(slicer_folder, tmp_path):
    """The whole job with what CMake installs: bundled scan, bundled model, result folder and report."""
    scan = slicer_folder / "HemorrhageSegLib" / "Resources" / "SampleData" / "head_ct_hemorrhage.nrrd"
    task = ("hemorrhage", str(scan), str(tmp_path / "out"), "--device", "cpu")
    done = run(slicer_folder, "-m", "NeuraxisLib.cli", *task)
    assert done.returncode == 0, done.stderr
    assert "Total volume" in done.stdout
    assert {"report.html", "result.json", "labels.seg.nrrd"} <= {path.name for path in (tmp_path / "out").iterdir()}
