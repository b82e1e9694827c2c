"""The benchmarks' table: turns, kept rows, ratios, goals and the page; not how fast anything is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from project_tree import ROOT

sys.path.append(str(ROOT / "Testing" / "benchmarks"))

from Testing.benchmarks import page, reasons, results, rows_scaling, table
from Testing.benchmarks.goals import GOALS, goals
from Testing.benchmarks.results import Comparison, Row, Sheet, Work
from Testing.benchmarks.turns import Apart, ContenderError, Here, Taken, median, take_turns


def made_row() -> Row:
    taken = {"ours": Taken(2.0, 1.0, 0.5, 0.1, 7, 3), "ours, slow": Taken(9.0, 9.0), "peer": Taken(3.0, 4.0, 1.5, 0.2)}
    return Row("A thing", [Comparison("thing", taken, Work(5e9, 1e6), "A note.")], made="then", load="1.0, 2.0")


# -- turns ----------------------------------------------------------------------------------------------------


def test_contenders_alternate_after_a_round_that_warms_up():
    order = []
    taken = take_turns({name: Here(lambda name=name: order.append(name)) for name in "ab"}, 2)
    assert order == list("ababab")
    assert taken["a"].rounds == 2 and taken["a"].wall_s > 0


def test_median_of_rounds_has_the_highest_peak_and_the_memory_that_the_first_added():
    first, *rounds = Taken(9, 9, 3.0, 0.5), Taken(1, 4, 1.0, 0.0), Taken(2, 6, 2.0, 0.0), Taken(30, 5, 1.5, 0.0)
    found = median(rounds, first)
    assert (found.wall_s, found.cpu_s, found.peak_gb, found.extra_gb, found.rounds) == (2, 5, 3.0, 0.5, 3)


def memory_for_a_moment():
    return lambda: len(bytearray(200_000_000))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_memory_of_a_run_is_what_it_took_and_gave_back():
    contender = Apart(1, memory_for_a_moment)  # a process of its own: nothing else in it takes or gives back meanwhile
    taken = contender.round()
    contender.close()
    assert taken.answer == 200_000_000
    assert 0.19 < taken.extra_gb < 0.26


def in_its_own_process(value: int):
    import os

    here = os.getpid()
    return lambda: (value, here, os.environ["OMP_NUM_THREADS"])


def broken():
    raise ValueError("no such thing")


def test_contender_in_its_own_process_runs_there_and_its_failure_is_told():
    import os

    contender = Apart(1, in_its_own_process, 5)
    value, process, threads = contender.round().answer
    contender.close()
    assert (value, threads) == (5, "1") and process != os.getpid()
    with pytest.raises(ContenderError, match="ValueError: no such thing"):
        take_turns({"broken": Apart(1, broken)}, 1)


# -- ratios, goals, page --------------------------------------------------------------------------------------


def test_ratios_are_of_the_first_and_own_variants_are_no_peers():
    one = made_row().comparisons[0]
    assert one.ratios("peer") == (1.5, 4.0) and list(one.peers()) == ["peer"]


def test_fraction_of_the_roofline_is_the_longer_of_both_limits():
    one = made_row().comparisons[0]
    assert page.fraction(one, {"peak": {"float32": 1e10}, "bandwidth": 1e9}) == 0.5
    assert page.fraction(one, {"peak": {"float32": 1e12}, "bandwidth": 1e7}) == 0.1
    assert page.fraction(one, {}) is None


def test_a_row_far_from_the_roofline_is_told_with_its_reason(monkeypatch):
    limits = Row("", facts={"peak": {"float32": 1e12}, "bandwidth": 1e7, "fractions": {"starter a": 0.49, "b": 0.51}})
    rows = {"x": made_row(), "roofline": limits}
    assert page.far_from_the_roofline(rows) == {"thing": 0.1, "starter a": 0.49}
    monkeypatch.setattr(reasons, "REASONS", {"th": "of the short.", "thing": "of the long.", "starter": "of all."})
    text = page.markdown(rows, {})
    assert "- thing (0.1): of the long.\n- starter a (0.49): of all.\n" in text
    monkeypatch.setattr(reasons, "REASONS", {})
    assert "- thing (0.1): no reason is known.\n" in page.markdown(rows, {})


def test_every_row_of_the_docs_that_is_far_from_the_roofline_has_a_reason():
    rows = results.load(ROOT / "Docs" / "benchmarks.json")
    far = page.far_from_the_roofline(rows)
    assert len(far) > 5 and [what for what in far if not reasons.reason(what)] == []


def test_a_peer_that_is_faster_stands_in_the_first_lines():
    slow = made_row()
    slow.comparisons[0].taken["peer"] = Taken(9.0, 0.5)
    assert "All 1 ratios to a peer are at least 1.0" in page.markdown({"x": made_row()}, {})
    assert "Of 1 ratios to a peer 1 are below 1.0** by processor time: peer at 'thing' (0.50)" in page.markdown(
        {"x": slow}, {}
    )


def test_goals_without_measurement_are_not_claimed():
    sheet = goals({})
    assert len(sheet.rows) == len(GOALS) == 12
    assert {row[3] for row in sheet.rows} == {""}
    assert all("not measured" in row[2] for row in sheet.rows)


def test_goals_are_judged_by_what_the_rows_say():
    reads = Comparison("patch", {"ours": Taken(1, 1), "nibabel": Taken(39, 39)})
    judged = {row[0]: row[2:] for row in goals({"patches": Row("", [reads])}).rows}
    assert judged["patch reads, against nii.gz"] == ["39.0x by processor time", "NOT reached"]


def test_covered_time_counts_nothing_twice():
    assert rows_scaling.covered_s((0.0, 10.0), [(-1, 2), (1, 3), (8, 20), (30, 40)]) == 5.0


def test_rows_come_back_from_the_file_and_the_page_names_every_column(tmp_path):
    row = made_row()
    row.sheet = Sheet(["A", "B"], [["1", "2|3"]])
    table.write({"naming": row}, tmp_path / "page.md")
    kept = results.load(tmp_path / "page.json")
    assert kept == {"naming": row}
    text = (tmp_path / "page.md").read_text()
    assert all(column in text for column in page.COLUMNS)
    assert (
        "| thing | ours | 2 | 1 |  |  | 0.5 | 0.1 | - |" in text
        and "|  | peer | 3 | 4 | 1.50 | 4.00 | 1.5 | 0.2 |  |" in text
    )
    assert "| 1 | 2/3 |" in text and "1.0, 2.0" in text


# -- the command ----------------------------------------------------------------------------------------------


def shown(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "page.json").read_text())["rows"]


def test_rows_are_measured_one_by_one_and_kept(tmp_path, monkeypatch, capsys):
    asked = []

    def row_of(key: str):
        def measure(settings):
            asked.append(key)
            if key == "dicom":
                raise RuntimeError("gone")
            return made_row()

        return measure

    monkeypatch.setattr(table, "ROWS", {key: row_of(key) for key in ("naming", "dicom", "perfusion")})
    page_md = ["--output", str(tmp_path / "page.md"), "--quick"]
    assert table.main(page_md) == 1  # a row that cannot be measured stops no other
    assert asked == ["naming", "dicom", "perfusion"] and list(shown(tmp_path)) == ["naming", "perfusion"]
    assert "not measured: dicom" in capsys.readouterr().out
    asked.clear()
    assert table.main([*page_md, "--keep"]) == 1 and asked == ["dicom"]
    asked.clear()
    assert table.main([*page_md, "--only", "perfusion"]) == 0
    assert asked == ["perfusion"] and list(shown(tmp_path)) == ["naming", "perfusion"]


def test_quick_rows_compare_ours_with_peers_on_real_work(tmp_path):
    table.main(["--quick", "--only", "naming", "metrics", "dicom", "--output", str(tmp_path / "page.md")])
    rows = shown(tmp_path)
    assert list(rows) == ["naming", "dicom", "metrics"] and all(row["quick"] for row in rows.values())
    for row in rows.values():
        for one in row["comparisons"]:
            assert next(iter(one["taken"])).startswith("ours")
            assert sum(not name.startswith("ours") for name in one["taken"]) == 1
            assert all(taken["cpu_s"] > 0 and taken["wall_s"] > 0 for taken in one["taken"].values())
    assert max(rows["metrics"]["facts"]["differences"]) < 1e-5  # of small masks, whose distances MONAI rounds


@pytest.mark.nightly
def test_every_row_can_be_measured(tmp_path):
    table.main(["--quick", "--output", str(tmp_path / "page.md")])
    rows = shown(tmp_path)
    assert list(rows) == list(table.ROWS)
    assert {"peak", "bandwidth"} <= set(rows["roofline"]["facts"])
    assert all(row["comparisons"] or row["sheet"] or row["notes"] for row in rows.values())
