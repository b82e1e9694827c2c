"""Graphics cards that fail, told by what torch says then: none is needed."""

from __future__ import annotations

import sys
import warnings

import pytest
from fault_support import SUPPORT, entries, head

from NeuraxisLib.errors import InputError, WorkerError

sys.path.append(str(SUPPORT))
from worker_fixtures import threshold_task  # noqa: F401


def test_a_card_that_is_lost_is_told_and_the_next_run_has_another_process(client, bare, tmp_path):
    """After such an error CUDA refuses everything in the same process, so that it must not be kept warm."""
    lost = client.job("threshold", {"ct": head()}, str(bare), {"fault": "graphics card"}, output=tmp_path / "out")
    after = client.job("threshold", {"ct": head()}, str(bare), output=tmp_path / "next")
    first, second = client.run(lost), client.run(after)  # the second waits already
    with pytest.raises(WorkerError, match=r"graphics card failed during the run \(CUDA error: unspecified launch fail"):
        client.wait(first, timeout=120)
    assert client.wait(second, timeout=120) == tmp_path / "next"
    assert "result.json" in {name.rpartition("/")[2] for name in entries(tmp_path)} and not (tmp_path / "out").exists()
    third = client.job("threshold", {"ct": head()}, str(bare), {"fault": "bug"}, output=tmp_path / "out")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        client.wait(client.run(third), timeout=120)
    assert client._process is not None  # an ordinary fault costs no process


def test_a_driver_that_is_too_old_leaves_the_work_to_the_processor(monkeypatch):
    torch = pytest.importorskip("torch")
    from NeuraxisLib.inference import choose_device

    def is_available() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old.", stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    with pytest.warns(UserWarning, match="too old"):
        assert choose_device("auto") in ("cpu", "mps")
    with pytest.warns(UserWarning, match="too old"), pytest.raises(InputError, match="'cuda' is not available"):
        choose_device("cuda")
