"""What pytest says of the fault catalogue at its end: faults tried, wrong-silent, lost.

Every collected test that a row of the catalogue names gets the marker ``fault`` with the row's id, so that
``pytest -m fault`` runs the catalogue. Whatever happens to these tests is counted, and so is whether the sentence of a
row was really said while they ran. A row whose test fails counts as the worst that the row guards against.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from NeuraxisLib.errors import NeuraxisError
from Testing.faults.catalogue import Fault, NamedTest, catalogue

#: What was said (errors in words, and what tests heard from other processes) during the test that runs now.
_heard: list[str] = []


def hear(text: str) -> None:
    """Note what a person would have read; for tests that talk to another process."""
    _heard.extend(line for line in text.splitlines() if line.strip())


class FaultReport:
    """Follows the tests of the catalogue through a session."""

    def __init__(self) -> None:
        self.collected: set[tuple[str, str, str]] = set()
        self._rows: dict[str, list[Fault]] = defaultdict(list)  # of each test, by its node id
        self._outcomes: dict[str, dict[str, str]] = defaultdict(dict)  # of each row: node id -> outcome
        self._expected: dict[str, set[str]] = defaultdict(set)  # of each row: node ids that are to run
        self._said: dict[str, list[str]] = defaultdict(list)
        self._reasons: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark the tests that rows name; before any are deselected."""
        rows: dict[tuple[str, str], list[tuple[NamedTest, Fault]]] = defaultdict(list)
        for row in catalogue():
            for named in row.tests:
                rows[named.file, named.function].append((named, row))
        for item in items:
            function, parameters = getattr(item, "originalname", None) or item.name, ""
            if hasattr(item, "callspec"):
                parameters = item.callspec.id
            test = (item.path.name, function, parameters)
            self.collected.add(test)
            found = {row.id: row for named, row in rows.get(test[:2], ()) if named.matches(*test)}
            for row in found.values():
                item.add_marker(pytest.mark.fault(row.id))
                self._rows[item.nodeid].append(row)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember which tests are really to run."""
        for item in session.items:
            for row in self._rows[item.nodeid]:
                self._expected[row.id].add(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Listen while a test of the catalogue runs."""
        _heard.clear()
        result = yield
        for row in self._rows[item.nodeid]:
            self._said[row.id].extend(_heard)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the outcome of a test for its rows; the worst of set-up, call and clean-up counts."""
        for row in self._rows.get(report.nodeid, ()):
            if report.failed or report.nodeid not in self._outcomes[row.id] or report.when == "call":
                earlier = self._outcomes[row.id].get(report.nodeid)
                self._outcomes[row.id][report.nodeid] = "failed" if earlier == "failed" else report.outcome
            if report.skipped and isinstance(report.longrepr, tuple):
                self._reasons[row.id] = report.longrepr[2].removeprefix("Skipped: ")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A sentence that was never said fails the session, as a failing test does."""
        if session.exitstatus == pytest.ExitCode.OK and self.unsaid():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def tried(self) -> list[Fault]:
        """Rows of which at least one test ran to an end, whatever end."""
        return [row for row in catalogue() if {"passed", "failed"} & set(self._outcomes[row.id].values())]

    def failed(self, guards: str) -> list[Fault]:
        """Rows with a failing test, of those that guard against this."""
        return [row for row in self.tried() if row.guards == guards and "failed" in self._outcomes[row.id].values()]

    def unsaid(self) -> list[Fault]:
        """Rows all of whose tests passed, but whose error was heard from none of them."""
        whole = [row for row in self.tried() if set(self._outcomes[row.id].values()) == {"passed"}]
        whole = [row for row in whole if row.outcome == "refused" and self._complete(row)]
        return [row for row in whole if not any(re.search(row.sentence, said) for said in self._said[row.id])]

    def _complete(self, row: Fault) -> bool:
        """Whether every test that the row names ran."""
        ran = {(node.split("::")[0].rsplit("/", 1)[-1], node.split("::")[1]) for node in self._outcomes[row.id]}
        return all(
            any(name == test.file and rest.startswith(test.function) and test.words in rest for name, rest in ran)
            for test in row.tests
        )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The summary line, and below it every row that was not tried although its turn was."""
        tried = self.tried()
        if not tried:
            return
        silent, lost = self.failed("wrong-silent"), self.failed("lost")
        write = terminalreporter.write_line
        write(
            f"faults tried {len(tried)} of {len(catalogue())}, wrong-silent {len(silent)}, lost {len(lost)}",
            red=bool(silent or lost), bold=True,
        )  # fmt: skip
        for row in (*silent, *lost):
            write(f"  {row.id} {row.guards}: {row.fault}")
        for row in self.unsaid():
            write(f"  {row.id} passed, but nobody said: {row.sentence}", red=True)
        for row in catalogue():
            if row not in tried and (row.untried or self._expected[row.id]):
                write(f"  {row.id} not tried: {row.untried or self._reasons.get(row.id, 'no test of it ran')}")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the report, and listen to every error that is made in this process."""
    config.addinivalue_line("markers", "fault(id): a row of Testing/faults/catalogue.csv; set from that table")
    config.pluginmanager.register(FaultReport(), "fault-report")
    plain = NeuraxisError.__init__

    def heard(self: NeuraxisError, *arguments: object) -> None:
        plain(self, *arguments)
        hear(str(self))

    NeuraxisError.__init__ = heard
    config.add_cleanup(lambda: setattr(NeuraxisError, "__init__", plain))
