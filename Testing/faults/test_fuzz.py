"""A sample of the fuzzing: the whole of it is ``python Testing/faults/fuzz.py --count 10000``, at night."""

from __future__ import annotations

import os
import signal
import time

import pytest

from NeuraxisLib import task
from Testing.faults.fuzz import SUBJECTS, fuzz, judge
from Testing.faults.fuzz_stores import STORES
from Testing.faults.fuzz_subjects import Subject
from Testing.faults.mutants import mutant

#: Mutants of each syntax: enough that a reader that lets an error through is found by most runs of the suite.
SAMPLE = 40
#: What is always gone on with, whatever was said.
ANSWERED = ("requests", "answers", "ledger", "batch-result")
META = b"NDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\nTransformMatrix ="
#: What once got through, by an exception, a crash or in silence: (syntax, what in the good file, what in its place).
FOUND = [
    ("metaimage", META, META.replace(b"3\n", b"3\xe9") + b"\nNDims = 3073498 "),  # ITK crashed
    ("dicom-jpeg", b"\xff\xc3\x00\x0b\x10", b"\xff\xc3\x00\x0b\x12"),  # 18 bits: ITK crashed
    ("result", b"labels.seg.nrrd", b"x" * 300),
    ("review", b'"schema_version": 1', b'"schema_version": []'),
    ("review", b'"corrected"', b"[" * 20_000),
    ("times-csv", b"frame;time_a_ms;time_b_ms\n1;0;200\n2;1500;1700\n3;3000;3200\n4;4500;4700\n", b"frame;time\n"),
    ("times-json", b"1.5", b"[" * 20_000),
    ("times-json", b"1.5", b"1" + b"0" * 400),
    ("case-table", b"three,b/three", b'three,"b/three'),
    ("training-table", b"a_m.nii", b"9" * 400),
    ("training-list", b'["ID_a", "ID_b"]', b"[" * 20_000),
    ("ledger", b'"folder": "one"', b'"folder": "../scans"'),
    ("ledger", b'"folder": "one"', b'"folder": true'),
    ("ledger", b'"folder": "one"', b'"folder": null'),
    ("ledger", b'"model": "bright"', b'"model": ["m"]'),
    ("ledger", b'"attempts": 1', b'"attempts": 1e308'),
    ("ledger", b'"attempts": 1', b'"attempts": true'),
    ("ledger", b'"attempts": 1', b'"attempts": ' + b"[" * 20_000),
    ("batch-result", b'"warnings": []', b'"warnings": 3.5'),
    ("batch-result", b'"provenance": {', b'"provenance": 7, "other": {'),
    ("answers", b'"fraction": 0.75', b'"fraction": -1'),
    ("answers", b'"fraction": 0.75', b'"fraction": 1' + b"0" * 400),
]


@pytest.mark.parametrize("syntax", SUBJECTS)
def test_damaged_files_are_read_right_or_refused_in_words(syntax, tmp_path):
    if syntax in ("model", *STORES):
        pytest.importorskip("torch")
    tally = fuzz(syntax, 0, SAMPLE, tmp_path)
    assert tally.faults == 0, tally.examples
    assert tally.counts["died"] == 0, tally.examples
    assert sum(tally.counts.values()) == SAMPLE
    assert tally.counts["refused"] > SAMPLE // 20 or syntax in ANSWERED


@pytest.mark.parametrize(("syntax", "old", "new"), FOUND, ids=lambda value: value if isinstance(value, str) else "")
def test_what_once_got_through_does_so_no_more(syntax, old, new, tmp_path, monkeypatch):
    monkeypatch.setitem(task.TASKS, "threshold", "threshold_task:TASK")
    subject = SUBJECTS[syntax]
    path = subject.write(tmp_path)
    good, data = subject.read(path), path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    assert judge(subject, path, good)[0] in ("read", "refused"), judge(subject, path, good)


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
