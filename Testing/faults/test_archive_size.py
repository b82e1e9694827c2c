"""An archive of 100,000 scans whose batch was killed (performance_and_reliability.md 4.3): 0 lost, 0 doubled.

Most cases are in the ledger with their results; some results were whole when the kill came, but not in the ledger yet;
some cases are missing; the ledger's last line is cut off.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from fault_support import SUPPORT

from NeuraxisLib import task
from NeuraxisLib.batch import Batch
from NeuraxisLib.batch_cases import Case
from NeuraxisLib.result_folder import RESULT_FILE

sys.path.append(str(SUPPORT))
from bare_models import write_bare_model
from batch_support import InlineWorkers, write_scan

#: Cases that are whole but not in the ledger, and cases that are not there at all.
ADOPTED, MISSING = 5, 7
#: A file may have so many names on every usual disk.
MOST_LINKS = 20_000


@pytest.mark.parametrize("count", [1_000, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_a_large_archive_goes_on_after_a_kill(count, tmp_path, monkeypatch):
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    scan = str(write_scan(tmp_path / "scan.nrrd"))
    model = str(write_bare_model(tmp_path / "bright.safetensors"))
    cases = [Case(f"case{number:06d}", {"ct": scan}) for number in range(count)]
    first = Batch("threshold", cases[:1], tmp_path / "out", InlineWorkers(), model=model)
    first.wait()
    first.close()
    killed_at(count, cases, tmp_path / "out")
    workers = InlineWorkers()
    batch = Batch("threshold", cases, tmp_path / "out", workers, model=model)
    batch.wait()
    batch.close()
    assert sorted(workers.computed) == [case.name for case in cases[-MISSING:]]
    assert batch.count("done") == count and sum(entry.earlier for entry in batch.entries) == count - MISSING
    assert_each_is_there_once(count, tmp_path / "out")


def killed_at(count: int, cases: list[Case], output: Path) -> None:
    """The output folder as a kill leaves it: all but the last cases are done, with results that share their files."""
    ledger = output / "batch.jsonl"
    record = json.loads(ledger.read_text())
    finished = count - ADOPTED - MISSING
    whole = output / cases[0].name
    with open(ledger, "a") as file:
        for number in range(1, finished):
            folder = output / cases[number].name
            folder.mkdir()
            if number % MOST_LINKS == 0:
                shutil.copy(whole / RESULT_FILE, folder / RESULT_FILE)
                whole = folder
            else:
                os.link(whole / RESULT_FILE, folder / RESULT_FILE)
            file.write(json.dumps({**record, "case": folder.name, "folder": folder.name}) + "\n")
        file.write(json.dumps({**record, "case": cases[finished].name})[:60])
    for case in cases[finished : finished + ADOPTED]:
        shutil.copytree(output / cases[0].name, output / case.name)


def assert_each_is_there_once(count: int, output: Path) -> None:
    """In the ledger, in the table and on the disk."""
    lines = [line for line in (output / "batch.jsonl").read_text().splitlines() if line.endswith("}")]
    named = Counter(json.loads(line)["case"] for line in lines)
    assert len(named) == count and set(named.values()) == {1}
    with open(output / "cases.csv", encoding="utf-8", newline="") as file:
        rows = [(row["case"], row["status"]) for row in csv.DictReader(file)]
    assert len(set(rows)) == len(rows) == count and {status for _, status in rows} == {"done"}
    assert sum((output / name / RESULT_FILE).is_file() for name in os.listdir(output)) == count
