"""The scans of the Sample Data module: offered by every clinical module, bundled, read by Slicer's own readers."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from panel_states import CLINICAL
from PIL import Image
from project_tree import ROOT

from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401

#: Bytes of a sample that everyone who installs the extension downloads.
MOST_BYTES = 3_000_000


@pytest.fixture
def offered(application, monkeypatch) -> dict[str, dict]:  # noqa: F811
    """Module -> what it registers."""
    sources = {}
    for module in CLINICAL:
        logic = SimpleNamespace(registerCustomSampleDataSource=lambda module=module, **s: sources.update({module: s}))
        monkeypatch.setitem(sys.modules, "SampleData", SimpleNamespace(SampleDataLogic=logic))
        sys.modules[module].registerSampleData()
    return sources


def test_every_module_offers_a_bundled_scan_under_one_category(offered):
    assert set(offered) == set(CLINICAL)
    for source in offered.values():
        address = urlparse(source["uris"])
        path = ROOT.__class__(unquote(address.path))
        assert address.scheme == "file" and path.is_file() and path.stat().st_size < MOST_BYTES
        assert path.name == source["fileNames"] and source["nodeNames"] == source["sampleName"]
        assert source["category"] == "Neuraxis"
        with Image.open(source["thumbnailFileName"]) as picture:
            assert picture.size == (260, 280) and np.ptp(np.asarray(picture)) > 200, "a picture of the scan"
        assert "Licence:" in (path.parent / "ATTRIBUTION.txt").read_text()


def test_slicer_reads_the_acquisition_with_its_times(offered):
    """By the storage node that Slicer takes for a SequenceFile; the stroke module can compute on it at once."""
    import slicer

    from NeuraxisLib import scene_frames
    from NeuraxisLib.scene_sequences import sequence_times

    source = offered["StrokeCTP"]
    assert source["loadFileTypes"] == "SequenceFile" and re.search("simulated", source["sampleName"], re.I)
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeSequenceStorageNode")
    storage.SetFileName(unquote(urlparse(source["uris"]).path))
    assert storage.ReadData(sequence)
    assert scene_frames.why_no_frames(sequence) == ""
    times = sequence_times(sequence)
    assert len(times) == sequence.GetNumberOfDataNodes() == 33
    assert np.allclose(np.diff(times), 2.0, atol=0.05)


def test_the_simulated_stroke_is_what_its_page_says(offered):
    """Volumes of core and hypoperfused tissue near the truth that ATTRIBUTION.txt states."""
    from NeuraxisLib.task import Progress
    from StrokeCTPLib.inputs import read_perfusion
    from StrokeCTPLib.pipeline import run
    from StrokeCTPLib.task import StrokeOptions

    path = ROOT.__class__(unquote(urlparse(offered["StrokeCTP"]["uris"]).path))
    truth = re.search(r"core is ([\d.]+) mL and ([\d.]+) mL are", (path.parent / "ATTRIBUTION.txt").read_text())
    options = StrokeOptions(device="cpu")
    frames = read_perfusion(path, options, None, False, Progress())
    found = {m.name: m for m in run({"perfusion": frames}, None, options, Progress()).measurements}
    core, late = found["Core volume"], found["Hypoperfused volume"]
    assert core.interval[0] < float(truth[1]) < core.interval[1]
    assert abs(late.value - float(truth[2])) < 0.2 * float(truth[2])
