"""Training: a disk that fills while a checkpoint is written."""

from __future__ import annotations

import os

import pytest
from fault_support import linux_only

torch = pytest.importorskip("torch")

from NeuraxisLib.errors import OutputError  # noqa: E402
from Training.checkpointing import read, save  # noqa: E402


@linux_only
def test_a_full_disk_at_a_checkpoint_leaves_the_earlier_one(tmp_path):
    """The file may not grow beyond 100 kB, as on a full disk: the earlier state is whole, nothing else stays."""
    import resource

    earlier = {"step": 7, "network": {"weight": torch.arange(1000.0)}}
    save(tmp_path / "checkpoint.pt", earlier)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="'checkpoint.pt' could not be written"):
            save(tmp_path / "checkpoint.pt", {"step": 8, "network": {"weight": torch.zeros(1_000_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
    kept = read(tmp_path / "checkpoint.pt", torch.device("cpu"))
    assert kept["step"] == 7 and torch.equal(kept["network"]["weight"], earlier["network"]["weight"])
    save(tmp_path / "checkpoint.pt", {"step": 9, "network": {}})
    assert read(tmp_path / "checkpoint.pt", torch.device("cpu"))["step"] == 9
