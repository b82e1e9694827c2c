"""A batch on Dask names nobody: keys of tasks, pages of scheduler and worker, their logs, tables, ledger and report."""

from __future__ import annotations

import json
import sys
import urllib.request

import pytest
from fault_support import SUPPORT
from test_privacy import found_in, leaks, study, uids  # noqa: F401

from NeuraxisLib import task
from NeuraxisLib.batch import Batch
from NeuraxisLib.batch_cases import find_cases
from NeuraxisLib.task import get_task

distributed = pytest.importorskip("distributed")
sys.path.append(str(SUPPORT))
PAGES = ("/info/main/workers.html", "/info/main/logs.html", "/info/main/exceptions.html")


def test_a_batch_on_dask_names_nobody(study, uids, bare, tmp_path, monkeypatch):  # noqa: F811
    """Two studies in folders with a patient's name, one of them broken in a way that nobody foresaw."""
    from NeuraxisLib.batch_dask import DaskWorkers

    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    table = tmp_path / "cases.csv"
    table.write_text(f"case,ct,fault\none,{study},\ntwo,{study},quote\n", encoding="utf-8")
    out = tmp_path / "out"
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        workers = DaskWorkers(cluster, "cpu")
        batch = Batch("threshold", find_cases(table, get_task("threshold"), out), out, workers, model=str(bare))
        monkeypatch.setattr(workers, "close", lambda: None)  # or the scheduler forgets what it was asked
        kept, event = [], workers._event
        monkeypatch.setattr(workers, "_event", lambda number, future: (kept.append(future), event(number, future))[1])
        done = batch.wait()
        batch.write_tables(report=True)
        with distributed.Client(cluster) as client:
            keys = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
            told = repr([keys, client.get_scheduler_logs(), client.get_worker_logs(), client.get_task_stream()])
            address = f"http://127.0.0.1:{cluster.scheduler.http_server.port}"
            pages = [*PAGES, *(f"/info/task/{urllib.request.quote(key, safe='')}.html" for key in keys)]
            told += "".join(_page(address + page) for page in pages)
        workers._client.close()
    assert len(keys) == 2 and [bool(outcome.error) for outcome in done] == [False, True]
    assert "ValueError" in done[1].error
    assert found_in(told, uids) == []
    assert leaks(out, uids) == {}
    ledger = [json.loads(line) for line in (out / "batch.jsonl").read_text().splitlines()]
    assert [record["case"] for record in ledger] == ["one", "two"]


def _page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert answer.status == 200
        return answer.read().decode()
