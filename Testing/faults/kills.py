"""SIGKILL at random moments, again and again: ``python Testing/faults/kills.py --count 200``.

Names may follow: ``batch``, ``training``. The process that writes is forked from one that has imported everything,
killed after a random time, and looked after: can all that it left be read, and is nothing gone that was there? Then the
same work is begun once more, until it is done; what is done then has to be whole, with nothing twice. The exit status
is 1 if anything was not.

    kills        times that the writing process was killed (not: had ended already)
    finished     works that were brought to their end through these kills
    unreadable   files that could not be read after a kill
    lost         results, records or steps that were there and were gone, or were missing at the end
    doubled      results made or recorded twice
    left         temporary files that were still there at the end
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(ROOT), str(ROOT / "Testing"), str(ROOT / "Neuraxis" / "Testing" / "worker_support")]
    sys.path[:0] = [str(path) for path in ROOT.glob("[A-Z]*/") if list(path.glob("*Lib"))]

KINDS = ("unreadable", "lost", "doubled", "left")


class Work(Protocol):
    """Work that a process does in a folder, and goes on with if it is begun again there."""

    #: Longest time until the kill, in s: the work takes several times as long.
    span_s: float

    def begin(self, folder: Path) -> None:
        """Prepare an empty folder."""

    def go_on(self) -> None:
        """Do the work, to its end if nobody kills; in the child."""

    def look(self) -> list[tuple[str, str]]:
        """(kind of fault, words) of what a kill left."""

    def look_at_the_end(self) -> list[tuple[str, str]]:
        """(kind of fault, words) of what is wrong with the work done."""


@dataclass
class Tally:
    """What came of the kills."""

    counts: Counter = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, faults: list[tuple[str, str]]) -> None:
        """Count what was found."""
        self.counts.update(kind for kind, _ in faults)
        self.examples += [f"{kind}: {words}" for kind, words in faults][: 10 - len(self.examples)]


def storm(work: Work, count: int, rng: np.random.Generator, folder: Path) -> Tally:
    """Kill ``count`` times; works that come to their end are begun anew in another folder."""
    tally, number = Tally(), 0
    work.begin(folder / str(number))
    while tally.counts["kills"] < count:
        child = _forked(work, folder / "fault.txt")
        time.sleep(rng.uniform(0, work.span_s))
        os.kill(child, signal.SIGKILL)  # a child that has ended is still there, until it is waited for
        _, status = os.waitpid(child, 0)
        tally.add(work.look())
        if os.WIFSIGNALED(status):
            tally.counts["kills"] += 1
        elif os.WEXITSTATUS(status):
            raise RuntimeError((folder / "fault.txt").read_text())
        else:
            _end(work, tally)
            shutil.rmtree(folder / str(number))
            number += 1
            work.begin(folder / str(number))
    finish(work, folder / "fault.txt")
    _end(work, tally)
    return tally


def finish(work: Work, fault: Path) -> None:
    """Do the work in a child that nobody kills."""
    if os.waitpid(_forked(work, fault), 0)[1]:
        raise RuntimeError(fault.read_text())


def _end(work: Work, tally: Tally) -> None:
    tally.counts["finished"] += 1
    tally.add(work.look())
    tally.add(work.look_at_the_end())


def _forked(work: Work, fault: Path) -> int:
    """The number of a child that goes on with the work."""
    child = os.fork()
    if child:
        return child
    try:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        work.go_on()
    except BaseException:
        fault.write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def works() -> dict[str, type]:
    """Name -> kind of work; imported late, as training needs torch."""
    from Testing.faults.kills_works import BatchWork, TrainingWork

    return {"batch": BatchWork, "training": TrainingWork}


def main() -> int:
    """Kill as the command line says; prints one line for each kind of work, and examples of faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", metavar="WORK", help="batch, training (default: both)")
    parser.add_argument("--count", type=int, default=200, help="kills of each (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument("--json", type=Path, help="file to write the counts to")
    options = parser.parse_args()
    known, rows = works(), {}
    unknown = set(options.works) - set(known)
    if unknown:
        parser.error(f"no work {', '.join(sorted(unknown))}")
    for name in options.works or known:
        folder = Path(tempfile.mkdtemp(prefix="neuraxis-kills-"))
        begun = time.monotonic()
        try:
            tally = storm(known[name](folder), options.count, np.random.default_rng(options.seed), folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        rows[name] = {word: tally.counts[word] for word in ("kills", "finished", *KINDS)}
        rows[name]["seconds"] = round(time.monotonic() - begun, 1)
        print(f"{name:10}" + "".join(f" {word} {count}" for word, count in rows[name].items()), flush=True)
        print(*(f"    {example}" for example in tally.examples), sep="\n", end="\n" if tally.examples else "")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(row[kind] for row in rows.values() for kind in KINDS) else 0


if __name__ == "__main__":
    sys.exit(main())
