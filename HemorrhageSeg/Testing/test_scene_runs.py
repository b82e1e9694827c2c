"""The module's logic with the real worker: a volume node in, result nodes out; many files, one of them bad."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from Testing.slicer_stand_in.fixtures import add_head, application, stand_in  # noqa: F401

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained network: all of the machinery, none of the medicine."""
    pytest.importorskip("torch")
    from Testing.untrained_models import write_untrained_model

    return str(write_untrained_model(tmp_path_factory.mktemp("model") / "untrained.safetensors"))


@pytest.fixture(scope="module")
def ct():
    """A coarse version of the bundled head CT."""
    from HemorrhageSegLib.task import TASK
    from NeuraxisLib.files import read_volume

    full = read_volume(TASK.resources / "SampleData" / "head_ct_hemorrhage.nrrd")
    matrix = full.ijk_to_ras.copy()
    matrix[:3, :2] *= 2
    return Volume(np.ascontiguousarray(full.array[:, ::2, ::2]), matrix, "HU")


@pytest.fixture
def logic(application):  # noqa: F811
    """The module's logic with its own worker, ended after the test."""
    made = sys.modules["HemorrhageSeg"].HemorrhageSegLogic()
    yield made
    made.stop()


def add(ct):
    """The scan as a node."""
    import slicer

    return slicer.util.addVolumeFromArray(ct.array, ijkToRAS=ct.ijk_to_ras, name="HeadCT")


def test_console_call_through_the_real_worker(logic, ct, model):
    import slicer

    seen = []
    node = add(ct)
    shown = logic.process(node, model, device="cpu", onProgress=lambda fraction, stage: seen.append(fraction))
    assert set(shown.maps) == {"probability", "entropy"} and "measurements" in shown.tables
    assert slicer.util.arrayFromVolume(shown.maps["entropy"]).shape == ct.array.shape
    assert seen == sorted(seen) and len(seen) > 3
    assert (logic.resultFolder(node) / "report.html").is_file()


def test_cancel_through_the_real_worker(logic, ct, model):
    ended = []
    handle = logic.process(
        add(ct), model, "cpu", wait=False, onCancelled=lambda: ended.append("cancelled"), onDone=ended.append
    )
    logic.poll()
    logic.cancel(handle)
    since = time.monotonic()
    while not ended and time.monotonic() < since + 30:
        logic.poll()
        time.sleep(0.02)
    assert ended == ["cancelled"]


def test_what_is_no_head_is_refused_in_a_sentence(logic, model):
    node = add_head()  # a block
    with pytest.raises(InputError) as refused:
        logic.process(node, model, device="cpu")
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_one_bad_file_does_not_stop_the_batch(logic, ct, model, tmp_path):
    good, bad = tmp_path / "scan.nrrd", tmp_path / "broken.nrrd"
    write_volume(ct, good)
    bad.write_bytes(good.read_bytes()[:4000])
    (tmp_path / "again").mkdir()
    write_volume(ct, tmp_path / "again" / "scan.nrrd")
    outcomes = logic.processFolder([bad, good, tmp_path / "again" / "scan.nrrd"], tmp_path / "out", model, "cpu")
    assert [outcome.folder and outcome.folder.name for outcome in outcomes] == [None, "scan", "scan_2"]
    assert "broken.nrrd" in outcomes[0].error and outcomes[1].error == ""
    assert not (tmp_path / "out" / "broken").exists()
