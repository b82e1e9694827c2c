"""Who is trained on and who is held out: splits by patient, reproducible on every machine.

A split never parts the scans of one patient. Patients are shuffled by a hash of seed and patient, so that neither the
order of the files nor the version of a random generator matters; groups (kinds of bleed) are spread evenly.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from NeuraxisLib.errors import InputError
from Training.layouts.base import natural


class Case(Protocol):
    """What a case must say to be put into a split; a Source and a CaseInfo both do."""

    id: str
    patient: str
    group: str
    split: str


def by_fractions(cases: Sequence[Case], fractions: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """Case -> split, with as nearly as patients allow the given shares of the cases of every group.

    Args:
        cases: all cases.
        fractions: split -> share, of any sum above 0.
        seed: another seed gives another split.

    Raises:
        InputError: shares that are no shares, or more splits than patients.
    """
    wanted = {name: share for name, share in fractions.items() if share > 0}
    total = sum(wanted.values())
    if not wanted or min(fractions.values()) < 0:
        raise InputError("The shares of the splits must be numbers above 0; write them as train=0.7,val=0.1,test=0.2.")
    groups = _patients_by_group(cases, seed)
    if sum(map(len, groups.values())) < len(wanted):
        raise InputError(f"There are fewer patients than splits ({len(wanted)}); ask for fewer splits.")
    given = Counter({name: 0.0 for name in wanted})
    split_of = {}
    due = 0.0
    for patients in groups.values():  # debts are carried from group to group, so the whole comes out right as well
        for names in patients.values():
            due += len(names)
            chosen = max(wanted, key=lambda name, due=due: wanted[name] / total * due - given[name])
            given[chosen] += len(names)
            split_of.update(dict.fromkeys(names, chosen))
    return _none_empty(split_of, [names for patients in groups.values() for names in patients.values()], list(wanted))


def _none_empty(split_of: dict[str, str], patients: list[list[str]], splits: list[str]) -> dict[str, str]:
    """Give each split that got nobody, as happens with a handful of patients, one of the split that has most."""
    for split in splits:
        counts = Counter(split_of[names[0]] for names in patients)
        if not counts[split]:
            richest = max(splits, key=lambda name, counts=counts: counts[name])
            moved = next(names for names in reversed(patients) if split_of[names[0]] == richest)
            split_of.update(dict.fromkeys(moved, split))
    return split_of


def k_folds(cases: Sequence[Case], k: int, seed: int = 0) -> dict[str, str]:
    """Case -> ``"fold0"`` ... ``"fold<k-1>"``; train on all folds but one, judge on that one."""
    if k < 2:
        raise InputError(f"{k} folds cannot be made; ask for 2 or more.")
    return by_fractions(cases, {f"fold{number}": 1.0 for number in range(k)}, seed)


def by_counts(cases: Sequence[Case], counts: Mapping[str, int]) -> dict[str, str]:
    """Case -> split: the first patients, in natural order of their names, fill the first split, and so on.

    This is how SLEX-Net's 250 patients were parted (180, 20, 50). Patients beyond the counts get no split.
    """
    patients = sorted({case.patient for case in cases}, key=natural)
    if len(patients) < sum(counts.values()):
        raise InputError(
            f"There are {len(patients)} patients, but the splits ask for {sum(counts.values())}; ask for less."
        )
    bounds, start = {}, 0
    for name, count in counts.items():
        bounds.update(dict.fromkeys(patients[start : start + count], name))
        start += count
    return {case.id: bounds.get(case.patient, "") for case in cases}


def by_lists(cases: Sequence[Case], lists: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Case -> split from lists of case or patient names; cases in no list get no split.

    Raises:
        InputError: a name is in two lists or names no case.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        by_name[case.id].append(case.id)
        if case.patient != case.id:
            by_name[case.patient].append(case.id)
    split_of: dict[str, str] = {}
    for split, names in lists.items():
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise InputError(
                f"{len(unknown)} names of the list of '{split}' are no cases that were found; correct the list."
            )
        for name in {case for listed in names for case in by_name[listed]}:
            if split_of.setdefault(name, split) != split:
                raise InputError(f"'{name}' is in the lists of '{split_of[name]}' and of '{split}'; keep one of them.")
    return {case.id: split_of.get(case.id, "") for case in cases}


def leaks(cases: Sequence[Case]) -> list[dict[str, list[str]]]:
    """For every patient whose scans lie in several splits: split -> the scans in it."""
    by_patient: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for case in cases:
        if case.split:
            by_patient[case.patient][case.split].append(case.id)
    return [dict(splits) for splits in by_patient.values() if len(splits) > 1]


def read_shares(text: str) -> tuple[dict[str, float], bool]:
    """``"train=0.7,val=0.3"`` or ``"train=180,val=20"`` as (split -> number, whether these are counts of patients)."""
    try:
        shares = {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        shares = {}
    if not shares or not all(name and 0 <= value < float("inf") for name, value in shares.items()):
        raise InputError(f"The splits '{text}' cannot be read; write them as train=0.7,val=0.1,test=0.2.")
    counts = max(shares.values()) > 1
    if counts and any(value != int(value) for value in shares.values()):
        raise InputError(
            f"The splits '{text}' mix shares and numbers of patients; give shares up to 1 or whole numbers."
        )
    return ({name: int(value) for name, value in shares.items()} if counts else shares), counts


def _patients_by_group(cases: Sequence[Case], seed: int) -> dict[str, dict[str, list[str]]]:
    """group -> patient -> cases, patients in hashed order; a patient of several groups counts with the commonest."""
    by_patient: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_patient[case.patient].append(case)
    groups: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for patient in sorted(by_patient, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
        own = by_patient[patient]
        group = min(Counter(case.group for case in own).items(), key=lambda entry: (-entry[1], entry[0]))[0]
        groups[group][patient] = sorted(case.id for case in own)
    return {group: groups[group] for group in sorted(groups)}
