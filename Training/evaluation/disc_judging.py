"""Disc methods over the cases of a store: what each finds, compared with the store's disc centres.

A case on which a method fails counts with all its discs missed. Cases whose levels are not known are not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from NeuraxisLib.errors import InputError, NeuraxisError
from NeuraxisLib.result import Landmark
from NeuraxisLib.result_folder import RESULT_FILE, read_result
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.anatomy import number_of
from Training.evaluation.discs import DiscCase, compare_discs
from Training.store import Store

Truth = dict[int, tuple[float, ...]]


class DiscMethod(Protocol):
    """One column of the comparison: ``name``, ``facts`` for the record, and the points that it finds."""

    name: str
    facts: dict

    def points(self, case: str, image: Volume, progress: Progress) -> list[Landmark]:
        """The named points of a case; NeuraxisError if there are none."""


class DiscResults:
    """Result folders ``FOLDER/CASE`` that were written before.

    Raises:
        InputError: the folder holds a result of none of the cases.
    """

    def __init__(self, name: str, folder: Path, ids: Sequence[str]):
        self.name, self._folder, self.facts = name, folder, {"results": "read from result folders"}
        if not any((folder / case / RESULT_FILE).is_file() for case in ids):
            raise InputError(
                f"The folder '{folder.name}' of '{name}' holds a result of none of the {len(ids)} cases; its result "
                "folders must be named like the cases."
            )

    def points(self, case: str, image: Volume, progress: Progress) -> list[Landmark]:
        """Read the result of the case."""
        return read_result(self._folder / case, image).points


@dataclass(frozen=True)
class JudgedDiscs:
    """One case by one method.

    Attributes:
        method, case: names.
        truth: disc number -> RAS mm.
        points: what was found.
        compared: both together.
        error: why the method failed; empty if it did not.
    """

    method: str
    case: str
    truth: Truth
    points: list[Landmark]
    compared: DiscCase
    error: str = ""


@dataclass
class DiscEvaluation:
    """All cases by all methods.

    Attributes:
        source: name of the store.
        methods: name -> facts, in the order of the tables.
        judged: case after case.
        unjudged: case -> why it was not judged.
    """

    source: str
    methods: dict[str, dict]
    judged: list[JudgedDiscs] = field(default_factory=list)
    unjudged: dict[str, str] = field(default_factory=dict)

    def of(self, method: str) -> list[JudgedDiscs]:
        """The cases of one method."""
        return [one for one in self.judged if one.method == method]

    @property
    def is_complete(self) -> bool:
        """Whether every case was judged and no method failed."""
        return not self.unjudged and not any(one.error for one in self.judged)


def judge_discs(
    store: Store, ids: Sequence[str], methods: Sequence[DiscMethod], progress: Progress
) -> Iterator[tuple[DiscEvaluation, Volume]]:
    """After each case: (the evaluation so far, the image of the case).

    Args:
        store: cases with disc centres, as ``prepare`` makes them from a layout of spines.
        ids: its cases to judge.
        methods: in the order of the tables.
        progress: told how far it is; cancels.
    """
    evaluation = DiscEvaluation(store.path.name, {method.name: method.facts for method in methods})
    for number, name in enumerate(ids):
        part = progress.part(number / len(ids), (number + 1) / len(ids))
        case = store.case(name)
        discs = case.provenance.get("discs") or []
        if not discs or any(disc[0] is None for disc in discs):
            reason = "the levels of its discs are not known" if discs else "it has no disc centres"
            evaluation.unjudged[name] = reason
            continue
        truth = {int(disc[0]): tuple(disc[1:]) for disc in discs}
        for at, method in enumerate(methods):
            share = part.part(at / len(methods), (at + 1) / len(methods))
            evaluation.judged.append(_judged(method, name, case.image, truth, share))
        yield evaluation, case.image
    if not evaluation.judged:
        raise InputError(
            f"No case of '{store.path.name}' has discs with known levels; prepare it with a layout of spines."
        )


def _judged(method: DiscMethod, case: str, image: Volume, truth: Truth, progress: Progress) -> JudgedDiscs:
    points, error = [], ""
    try:
        points = method.points(case, image, progress)
    except NeuraxisError as fault:
        if fault.code == "cancelled":
            raise
        error = str(fault)
    found = [(number_of(point.name) or 0, point.position_ras_mm) for point in points]
    return JudgedDiscs(method.name, case, truth, points, compare_discs(truth, found), error)
