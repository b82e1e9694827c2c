"""The fault catalogue itself: tests of every row exist, or it says why not; the summary counts what happened."""

from __future__ import annotations

import ast
import re

import pytest
from project_tree import ROOT, files_in, module_names

from Testing.faults.catalogue import GUARDS, OUTCOMES, NamedTest, catalogue

pytest_plugins = ["pytester"]
#: Rows of performance_and_reliability.md 4.4, which come first and keep their numbers.
SPECIFIED = 90


def functions() -> dict[str, set[str]]:
    """Test file -> names of its test functions, of every room."""
    rooms = [ROOT / "Testing", *(ROOT / module / "Testing" for module in module_names())]
    paths = [path for room in rooms for path in files_in(room, "test_*.py")]
    found = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    return {
        path.name: {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for path, tree in found.items()
    }


def test_rows_are_numbered_and_complete():
    rows = catalogue()
    assert [row.id for row in rows] == [f"F{number:02d}" for number in range(1, len(rows) + 1)]
    assert len(rows) >= SPECIFIED
    for row in rows:
        assert row.section and row.fault and row.outcome in OUTCOMES and row.guards in GUARDS, row.id
        assert bool(row.tests) != bool(row.untried), f"{row.id}: tests, or a reason why there are none"
        if row.tests:
            assert row.state and (row.outcome == "right") == (row.sentence == ""), row.id
            re.compile(row.sentence)
    assert len({row.fault for row in rows}) == len(rows)


@pytest.mark.parametrize("row", catalogue(), ids=lambda row: row.id)
def test_every_test_that_a_row_names_is_there(row):
    known = functions_once()
    missing = [str(test) for test in row.tests if test.function not in known.get(test.file, set())]
    assert missing == []


_known: dict[str, set[str]] = {}


def functions_once() -> dict[str, set[str]]:
    """:func:`functions`, read once."""
    if not _known:
        _known.update(functions())
    return _known


def test_every_test_that_a_row_names_is_collected(request):
    """Parameters included; judged for the files of which this session has collected all tests."""
    if any("::" in argument for argument in request.config.args):
        pytest.skip("single tests were asked for")
    collected = request.config.pluginmanager.get_plugin("fault-report").collected
    files = {file for file, _, _ in collected}
    named = [(row.id, test) for row in catalogue() for test in row.tests if test.file in files]
    dead = [f"{row} {test}" for row, test in named if not any(test.matches(*one) for one in collected)]
    assert dead == []


def test_words_in_brackets_choose_parameters():
    test = NamedTest("test_a.py", "test_b", "cut short")
    assert test.matches("test_a.py", "test_b", "elements9-cut short")
    assert not test.matches("test_a.py", "test_b", "elements9-no air")
    assert not test.matches("test_a.py", "test_bc", "cut short")


def test_the_summary_counts_what_happened(pytester, monkeypatch):
    """A session of its own with a failing test, a silent one, a skipped one and a good one, each of a row."""
    pytester.makeini("[pytest]\nmarkers = slow: takes long\n")
    pytester.makepyfile(
        test_refusals="""
        import pytest
        from NeuraxisLib.errors import InputError
        @pytest.mark.parametrize("fault", ["NaN", "constant", "zeros"])
        def test_image_that_shows_no_head_ct(fault):
            if fault == "NaN":
                InputError("Has 2 voxels that are not a number; fill them.")
            assert fault != "zeros"
        """,
        test_files="def test_numbers_that_are_none_are_counted(): pass",
        test_machine="import pytest\ndef test_disk_full(): pytest.skip('no disk can be mounted here')\n"
        "def test_output_folder_that_cannot_be_written_to(): raise SystemError",
        test_security="def test_only_known_files_know_of_a_network(): pass\n"
        "def test_whatever_listens_is_on_this_machine_alone(): raise SystemError",
        test_models="def test_a_newer_format_asks_for_an_update(): pass",
    )
    roots = [str(ROOT), *(str(ROOT / module) for module in module_names())]
    monkeypatch.setenv("PYTHONPATH", ":".join(roots))
    done = pytester.runpytest_subprocess("-p", "Testing.faults.fault_plugin", "-p", "no:cacheprovider")
    text = done.stdout.str()
    assert f"faults tried 5 of {len(catalogue())}, wrong-silent 2, lost 1" in text, text
    assert re.search(r"F43 wrong-silent: An image of one value", text)  # one test of the row failed
    assert re.search(r"F\d+ wrong-silent: Whatever listens", text)
    assert re.search(r"F56 lost: Read-only folder", text)
    assert re.search(r"F88 passed, but nobody said: newer version", text)  # passed without the sentence of its row
    assert not re.search(r"F42 ", text)  # its sentence was heard
    assert re.search(r"F55 not tried: no disk can be mounted here", text)


def test_a_sentence_that_nobody_says_fails_the_session(pytester, monkeypatch):
    pytester.makepyfile(test_models="def test_a_newer_format_asks_for_an_update(): pass")
    monkeypatch.setenv("PYTHONPATH", ":".join([str(ROOT), *(str(ROOT / module) for module in module_names())]))
    done = pytester.runpytest_subprocess("-p", "Testing.faults.fault_plugin", "-p", "no:cacheprovider")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
