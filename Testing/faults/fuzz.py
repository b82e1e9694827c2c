"""Fuzz readers with damaged files, in a process that may die: ``python Testing/faults/fuzz.py --count 10000``.

Names of syntaxes may follow (all without). Every mutant is named by its number: ``--first 4711 --count 1`` repeats
one. The exit status is 1 if any mutant was silently wrong, ended in an unforeseen error, hung, or killed the reader.

    read         the mutant was read, and nothing that the format tells speaks against it
    refused      a named error, one sentence
    unforeseen   another exception: a person would read that something unexpected happened
    wrong        read, although the file itself tells that it is wrong
    died         the process ended (a crash in a decoder, memory); the host would live on
    hung         no answer within the time for one file
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(ROOT), *(str(path) for path in ROOT.glob("[A-Z]*/") if list(path.glob("*Lib")))]

from NeuraxisLib.errors import NeuraxisError
from Testing.faults.fuzz_stores import STORES
from Testing.faults.fuzz_subjects import FILES, Subject
from Testing.faults.fuzz_texts import TEXTS

SUBJECTS: dict[str, Subject] = {**FILES, **TEXTS, **STORES}

OUTCOMES = ("read", "refused", "unforeseen", "wrong", "died", "hung")
#: What one file may take, in s and in bytes of address space beyond what the libraries take.
SECONDS_PER_FILE = 10.0
MEMORY_BYTES = 6 << 30


@dataclass
class Tally:
    """What became of the mutants of one syntax."""

    counts: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    slowest_s: float = 0.0

    def add(self, number: int, outcome: str, detail: str, seconds: float) -> None:
        """Count one mutant; keep a few examples of what should not have happened."""
        self.counts[outcome] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if outcome not in ("read", "refused") and len(self.examples.setdefault(outcome, [])) < 5:
            self.examples[outcome].append(f"{number}: {detail}")

    @property
    def faults(self) -> int:
        """How many mutants showed a fault of the reader; a death is one of the decoder, which the host survives."""
        return sum(self.counts[outcome] for outcome in ("unforeseen", "wrong", "hung"))


def fuzz(subject: str | Subject, first: int, count: int, folder: Path) -> Tally:
    """Read ``count`` mutants of a syntax from number ``first`` on, in a process that is started anew if it ends."""
    tally, number, end = Tally(), first, first + count
    context = _context()
    while number < end:
        ours, theirs = context.Pipe()
        process = context.Process(target=_read_all, args=(subject, folder, number, end, theirs))
        process.start()
        theirs.close()
        ours.recv()  # it has imported what it needs and read the good file
        number = _follow(ours, process, number, end, tally)
    return tally


def _context() -> multiprocessing.context.BaseContext:
    """Forks of a process that has imported what all need and used none of it: ITK's threads survive no other fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["Testing.faults.fuzz"])
    return context


def _follow(pipe: Connection, process: multiprocessing.Process, number: int, end: int, tally: Tally) -> int:
    """Take outcomes until the process has done all, died or hung; returns the number to go on with."""
    while number < end:
        start = time.monotonic()
        try:
            if not pipe.poll(SECONDS_PER_FILE):
                process.kill()
                tally.add(number, "hung", f"no answer within {SECONDS_PER_FILE:g} s", time.monotonic() - start)
                break
            outcome, detail, seconds = pipe.recv()
            tally.add(number, outcome, detail, seconds)
            number += 1
        except EOFError:
            process.join()
            tally.add(number, "died", f"exit status {process.exitcode}", time.monotonic() - start)
            break
    else:
        number -= 1
    process.join()
    return number + 1


def _read_all(subject: str | Subject, folder: Path, number: int, end: int, pipe: Connection) -> None:
    """In the child: limits first, then mutant after mutant over the one path."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream in (1, 2):  # what decoders print
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    logging.disable()
    warnings.simplefilter("ignore")
    subject = SUBJECTS[subject] if isinstance(subject, str) else subject
    path = subject.write(Path(tempfile.mkdtemp(dir=folder)))
    data, good = path.read_bytes(), subject.read(path)
    pipe.send("ready")
    for current in range(number, end):
        path.write_bytes(subject.mutate(data, current))
        start = time.monotonic()
        outcome, detail = judge(subject, path, good)
        pipe.send((outcome, detail, time.monotonic() - start))
    pipe.close()
    os._exit(0)


def judge(subject: Subject, path: Path, good: object) -> tuple[str, str]:
    """(outcome, detail) of reading the file at ``path``; ``good`` is what the whole file gave."""
    try:
        found = subject.read(path)
    except NeuraxisError as error:
        text = str(error)
        named = type(error) is not NeuraxisError and str(path.parent) not in text
        whole = named and text.endswith(".") and "\n" not in text
        return ("refused", "") if whole else ("unforeseen", f"no sentence: {text[:150]!r}")
    except Exception as error:
        return "unforeseen", f"{type(error).__name__}: {str(error)[:150]}"
    fault = subject.wrong(good, found)
    return ("wrong", fault) if fault else ("read", "")


def main() -> int:
    """Fuzz the syntaxes of the command line; prints one line for each and examples of faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("syntaxes", nargs="*", metavar="SYNTAX", help=f"of: {', '.join(SUBJECTS)}")
    parser.add_argument("--count", type=int, default=1000, help="mutants of each syntax")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--json", type=Path, help="file to write the counts to")
    options = parser.parse_args()
    unknown = set(options.syntaxes) - set(SUBJECTS)
    if unknown:
        parser.error(f"no syntax {', '.join(sorted(unknown))}")
    faults, rows = 0, {}
    for name in options.syntaxes or SUBJECTS:
        folder = Path(tempfile.mkdtemp(prefix="neuraxis-fuzz-"))
        start = time.monotonic()
        try:
            tally = fuzz(name, options.first, options.count, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        rows[name] = {outcome: tally.counts[outcome] for outcome in OUTCOMES}
        rows[name] |= {"slowest_s": round(tally.slowest_s, 2), "seconds": round(time.monotonic() - start, 1)}
        faults += tally.faults
        print(f"{name:18}" + "".join(f" {word} {count}" for word, count in rows[name].items()), flush=True)
        for outcome, examples in tally.examples.items():
            print(*(f"    {outcome} {example}" for example in examples), sep="\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
