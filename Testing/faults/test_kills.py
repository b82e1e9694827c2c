"""A sample of the kills: the whole of them is ``python Testing/faults/kills.py --count 200``, at night."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(__file__).with_name("kills.py")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the process that is killed")


@pytest.mark.slow
@pytest.mark.parametrize("work", ["batch", "training"])
def test_killed_again_and_again_nothing_is_unreadable_lost_or_doubled(work, tmp_path):
    if work == "training":
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, str(COMMAND), work, "--count", "6", "--json", str(tmp_path / "counts.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((tmp_path / "counts.json").read_text())[work]
    assert counts["kills"] == 6 and counts["finished"] >= 1
    assert not any(counts[kind] for kind in ("unreadable", "lost", "doubled", "left"))


def test_the_storm_counts_what_is_wrong(tmp_path):
    """A work whose process writes its number in place, and one that forgets: what a kill leaves is seen."""
    code = f"""
import sys, time
sys.path[:0] = [{str(COMMAND.parents[2])!r}]
from pathlib import Path
import numpy as np
from Testing.faults.kills import storm

class Careless:
    span_s = 0.3
    def begin(self, folder):
        folder.mkdir()
        self.file = folder / "number"
    def go_on(self):
        for step in range(40):
            self.file.write_text("half of")
            time.sleep(0.02)
            self.file.write_text("whole")
            time.sleep(0.02)
    def look(self):
        return [("unreadable", "half")] if self.file.exists() and self.file.read_text() != "whole" else []
    def look_at_the_end(self):
        return [("lost", "all")]

tally = storm(Careless(), 12, np.random.default_rng(0), Path({str(tmp_path)!r}))
print(tally.counts["kills"], tally.counts["unreadable"] > 0, tally.counts["lost"], tally.counts["finished"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["12", "True", "1", "1"], done.stdout + done.stderr
