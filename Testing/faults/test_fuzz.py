"""A sample of the fuzzing: the whole of it is ``python Testing/faults/fuzz.py --count 10000``, at night."""

from __future__ import annotations

import os
import signal
import time

import pytest

from Testing.faults.fuzz import fuzz
from Testing.faults.fuzz_subjects import SUBJECTS, Subject
from Testing.faults.mutants import mutant

#: Mutants of each syntax: enough that a reader that lets an error through is found by most runs of the suite.
SAMPLE = 40


@pytest.mark.parametrize("syntax", SUBJECTS)
def test_damaged_files_are_read_right_or_refused_in_words(syntax, tmp_path):
    if syntax == "model":
        pytest.importorskip("torch")
    tally = fuzz(syntax, 0, SAMPLE, tmp_path)
    assert tally.faults == 0, tally.examples
    assert tally.counts["died"] == 0, tally.examples
    assert sum(tally.counts.values()) == SAMPLE
    assert tally.counts["refused"] > SAMPLE // 20 or syntax == "requests"  # which are all answered


def test_a_mutant_has_its_number():
    data = bytes(range(256)) * 4
    assert mutant(data, 7, 100) == mutant(data, 7, 100) != mutant(data, 8, 100)
    assert sum(mutant(data, number, 100) != data for number in range(200)) > 190


def test_a_reader_that_dies_hangs_or_lies_is_found(tmp_path, monkeypatch):
    """Guards the sample above: the four kinds of fault are told apart, and the count goes on after each."""
    from Testing.faults import fuzz as runner

    monkeypatch.setattr(runner, "SECONDS_PER_FILE", 1.0)
    tally = fuzz(Faulty(_write_number, _read_number, _wrong_number), 0, 6, tmp_path)
    assert tally.counts == {"died": 1, "hung": 1, "unforeseen": 1, "wrong": 1, "read": 2}


class Faulty(Subject):
    """Mutant n holds the number n."""

    def mutate(self, data, number):
        return str(number).encode()


def _write_number(folder):
    (folder / "a").write_bytes(b"7")
    return folder / "a"


def _read_number(path):
    number = int(path.read_bytes())
    if number == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 1:
        time.sleep(60)
    if number == 2:
        raise KeyError("a bug")
    return number


def _wrong_number(good, found):
    return "another" if found == 3 else ""
