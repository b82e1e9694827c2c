"""The modules as Slicer installs them: all files of all modules in one folder, nothing of the source tree beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project_tree import ROOT, installed_files, module_names

#: Opens every panel and the Sample Data entries from a folder; ``older`` as Slicer 5.10 is, without slicer.packaging.
CODE = """
import json, sys, types
from pathlib import Path
folder, older = Path(sys.argv[1]), sys.argv[2] == "older"
sys.path[:0] = [str(folder)]
sys.path.append(sys.argv[3])
from Testing.slicer_stand_in import start
application = start()
import slicer
if older:
    sys.modules["slicer.packaging"] = None
samples = []
logic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **source: samples.append(source))
sys.modules["SampleData"] = types.SimpleNamespace(SampleDataLogic=logic)
opened = {}
for name in json.loads(sys.argv[4]):
    application.load_module(folder / f"{name}.py")
application.start_up_completed()
for name in json.loads(sys.argv[4]):
    widget = application.new_widget(name)
    opened[name] = bool(widget.ui.noticeLabel.text)
    application.close_widget(widget)
rooms = [f"{name}Lib" for name in json.loads(sys.argv[4])]
ours = [m.__file__ for n, m in list(sys.modules.items()) if n.split(".")[0] in rooms and getattr(m, "__file__", None)]
print(json.dumps({"opened": opened, "strangers": [p for p in ours if not Path(p).is_relative_to(folder)],
    "count": len(ours), "samples": [s["sampleName"] for s in samples if Path(s["uris"][7:]).is_relative_to(folder)]}))
"""


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory) -> Path:
    """qt-scripted-modules: what CMake installs of every module."""
    pytest.importorskip("PySide6", reason="the stand-in for Slicer needs PySide6-Essentials and slicer-core")
    from Testing.slicer_stand_in import why_missing

    if why_missing():
        pytest.skip(why_missing())
    folder = tmp_path_factory.mktemp("qt-scripted-modules").resolve()
    for module in module_names():
        for place, source in installed_files(module).items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / place)
    return folder


@pytest.mark.parametrize("api", ["newest", "older"])
def test_panels_open_from_the_one_folder_that_slicer_installs(one_folder, api):
    modules = json.dumps(module_names())
    command = [sys.executable, "-I", "-c", CODE, str(one_folder), api, str(ROOT), modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=one_folder)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["opened"] == dict.fromkeys(module_names(), True)
    assert seen["count"] > 30 and seen["strangers"] == []
    assert sorted(seen["samples"]) == ["HeadCTHemorrhage", "LumbarSpineMR", "SimulatedCTPerfusion"]
