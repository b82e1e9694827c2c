"""Splits: by patient, near the shares that were asked for, spread over groups, the same wherever they are made."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from dicom_series import one_sentence

from NeuraxisLib.errors import InputError
from Training.layouts.base import Source
from Training.splits import by_counts, by_fractions, by_lists, k_folds, leaks, read_shares

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def cases(patients: int, seed: int = 0) -> list[Source]:
    """Patients with one to three scans each, of two groups, a third of them IVH."""
    rng = random.Random(seed)
    return [
        Source(f"s{patient}-{scan}", f"p{patient}", "IVH" if patient % 3 == 0 else "IPH")
        for patient in range(patients)
        for scan in range(rng.randint(1, 3))
    ]


def splits_of_patients(sources: list[Source], split_of: dict[str, str]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for source in sources:
        found[source.patient].add(split_of[source.id])
    return found


@pytest.mark.parametrize("patients", [6, 40, 301])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_patient_lies_in_one_split_and_shares_are_kept_in_every_group(patients, seed):
    sources = cases(patients)
    split_of = by_fractions(sources, SHARES, seed)
    assert split_of.keys() == {source.id for source in sources}
    assert all(len(splits) == 1 for splits in splits_of_patients(sources, split_of).values())
    assert set(split_of.values()) == set(SHARES)
    for group in ("IPH", "IVH", None):
        own = [split_of[source.id] for source in sources if group in (source.group, None)]
        for name, share in SHARES.items():
            assert abs(own.count(name) - share * len(own)) <= 3.5, (group, name)  # a patient brings up to 3 scans


def test_order_of_the_files_does_not_matter_and_the_seed_does():
    sources = cases(50)
    mixed = random.Random(3).sample(sources, len(sources))
    assert by_fractions(sources, SHARES, 5) == by_fractions(mixed, SHARES, 5) != by_fractions(sources, SHARES, 6)


def test_a_split_is_the_same_on_every_machine():
    """Stated once, so that a change of the rule is seen: hashes, not a random generator, decide."""
    split_of = by_fractions([Source(name, name) for name in "abcdefgh"], {"train": 0.75, "test": 0.25}, 7)
    assert sorted(name for name, split in split_of.items() if split == "test") == ["a", "g"]


def test_a_handful_of_patients_fills_every_split():
    for patients in (3, 4, 5):
        split_of = by_fractions([Source(str(n), str(n)) for n in range(patients)], {"a": 0.9, "b": 0.05, "c": 0.05})
        assert set(split_of.values()) == set("abc")
    with pytest.raises(InputError, match="fewer patients than splits"):
        by_fractions([Source("x", "p"), Source("y", "p")], SHARES)


def test_folds_are_even_and_cover_all():
    sources = cases(60)
    folds = k_folds(sources, 5, 2)
    counts = Counter(folds.values())
    assert set(counts) == {f"fold{number}" for number in range(5)} and max(counts.values()) - min(counts.values()) <= 4
    assert all(len(found) == 1 for found in splits_of_patients(sources, folds).values())
    with pytest.raises(InputError, match="1 folds"):
        k_folds(sources, 1)


def test_counts_take_the_first_patients_in_the_order_of_their_numbers():
    sources = [Source(f"{number}/{scan}", str(number)) for number in (10, 9, 1, 2, 11) for scan in (0, 1)]
    split_of = by_counts(sources, {"train": 2, "val": 1, "test": 1})
    by_patient = {source.patient: split_of[source.id] for source in sources}
    assert by_patient == {"1": "train", "2": "train", "9": "val", "10": "test", "11": ""}
    with pytest.raises(InputError, match="5 patients, but the splits ask for 7"):
        by_counts(sources, {"train": 7})


def test_lists_may_name_cases_or_patients():
    sources = cases(3)
    own = [source.id for source in sources if source.patient == "p1"]
    split_of = by_lists(sources, {"train": ["p0"], "test": own})
    assert {source.patient: split_of[source.id] for source in sources} == {"p0": "train", "p1": "test", "p2": ""}
    for lists, words in (
        ({"a": ["p0"], "b": ["s0-0"]}, "is in the lists of 'a' and of 'b'"),
        ({"a": ["x"]}, "1 names"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            by_lists(sources, lists)
        one_sentence(caught)


def test_leaks_are_patients_in_two_splits():
    sources = [Source("a", "p", split="train"), Source("b", "p", split="test"), Source("c", "q", split="train"),
               Source("d", "p", split="train"), Source("e", "q")]  # fmt: skip
    assert leaks(sources) == [{"train": ["a", "d"], "test": ["b"]}]


def test_shares_and_counts_are_told_apart():
    assert read_shares("train=0.8, val=0.2") == ({"train": 0.8, "val": 0.2}, False)
    assert read_shares("train=180,val=20") == ({"train": 180, "val": 20}, True)
    for text in ("train", "train=x", "", "train=-1", "train=nan", "=0.5", "train=2.5,val=0.5"):
        with pytest.raises(InputError) as caught:
            read_shares(text)
        assert "'" + text + "'" in str(caught.value)
