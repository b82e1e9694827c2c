"""What is looked at before anything is trained on: of every case by itself, and of the set as a whole.

All that is found is gathered and told at once. A fault means that the data cannot be used as they are; a warning is for
the reader to judge. Cases are named by their ids, patients never.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from Training.layouts.base import Finding
from Training.splits import Case, leaks
from Training.store import IGNORED, CaseInfo, StoredCase

#: A mask that marks more of its image than this is most likely inverted.
_TOO_MUCH = 0.5
#: Share of a truth outside the brain from which a reader should look.
_OUTSIDE = 0.2
#: Voxel sides beyond these are unusual for a head (mm in-plane, mm between slices).
_USUAL_MM = (1.5, 10.0)
#: How many cases a sentence names.
_NAMED = 6


def check_case(case: StoredCase) -> list[Finding]:
    """Findings about one case: its values, spacing, mask and brain."""
    findings = [Finding("reading", f"'{case.id}': {text}", (case.id,), False) for text in _warnings(case)]

    def tell(kind: str, text: str, fault: bool = False) -> None:
        findings.append(Finding(kind, f"'{case.id}' {text}", (case.id,), fault))

    array = case.image.array
    if array.min() == array.max():
        tell("values", f"has the same value ({array.flat[0]:g}) everywhere; export the image again.", fault=True)
    elif case.image.unit == "HU" and array.min() > -500:
        tell("values", f"is said to be in HU but its least value is {array.min():g}; check its unit.")
    x, y, z = case.image.spacing_mm
    if "spacing unknown" not in case.flags and (max(x, y) > _USUAL_MM[0] or z > _USUAL_MM[1]):
        tell("spacing", f"has an unusual voxel size of {x:.3g} x {y:.3g} x {z:.3g} mm; check it.")
    if case.truth is not None:
        _check_truth(case, tell)
    if case.region is not None and not case.region.any():
        tell("region", "shows no brain; leave it out or give its region.")
    return findings


def _warnings(case: StoredCase) -> list[str]:
    return [str(text) for text in case.provenance.get("warnings", [])]


def _check_truth(case: StoredCase, tell) -> None:
    marked = (case.truth > 0) & (case.truth != IGNORED)
    count = int(np.count_nonzero(marked))
    if not count:
        unlabelled = case.slice_label is None
        tell("empty", "has an empty mask; right for a scan without findings only." if unlabelled else "has no outline.")
        return
    if count > _TOO_MUCH * marked.size:
        tell("mask", f"has {100 * count / marked.size:.0f} % of its image marked; the mask may be inverted.")
    if case.region is not None and case.region.any():
        outside = np.count_nonzero(marked & ~case.region) / count
        if outside > _OUTSIDE:
            tell("region", f"has {100 * outside:.0f} % of its mask outside the brain; look at both.")


def check_set(
    cases: Sequence[CaseInfo], allow_leaks: bool = False, everyone: Sequence[Case] | None = None
) -> list[Finding]:
    """Findings about the set: duplicates, patients in two splits, units, labels, splits without cases.

    Args:
        cases: the index of all cases that could be read.
        allow_leaks: patients and scans in two splits are warnings, to repeat a published split that has them.
        everyone: whose splits are compared, by default ``cases``; with those that could not be read, nothing about
            splits is left for a second round.
    """
    everyone = cases if everyone is None else everyone
    findings = [*_duplicates(cases, allow_leaks), *_leaks(everyone, allow_leaks), *_mixtures(cases)]
    if cases and not any(info.has_truth for info in cases):
        findings.append(Finding("truth", "No case has a mask; nothing can be learnt or judged by outlines.", (), False))
    undecided = [info.id for info in cases if not info.split]
    if undecided and len(undecided) < len(cases):
        text = f"{len(undecided)} of {len(cases)} cases are in no split ({names(undecided)}); they will not be used."
        findings.append(Finding("split", text, tuple(undecided), False))
    return findings


def _duplicates(cases: Sequence[CaseInfo], allow_leaks: bool) -> Iterable[Finding]:
    by_image, by_truth = defaultdict(list), defaultdict(list)
    for info in cases:
        by_image[info.image_sha256].append(info)
        if info.truth_sha256:
            by_truth[info.truth_sha256].append(info)
    for same in by_image.values():
        if len(same) > 1:
            ids, splits = tuple(info.id for info in same), {info.split for info in same}
            where = f" and lie in different splits ({', '.join(sorted(splits))})" if len(splits) > 1 else ""
            text = f"{names(ids)} are the same image under {len(ids)} names{where}; keep one of them."
            yield Finding("duplicate", text, ids, fault=not (allow_leaks and len(splits) > 1) and _differ(same))
    for same in by_truth.values():
        if len({info.image_sha256 for info in same}) > 1:
            ids = tuple(info.id for info in same)
            text = f"{names(ids)} have the same mask on different images; one of them may be paired wrongly."
            yield Finding("duplicate", text, ids, fault=False)


def _differ(same: list[CaseInfo]) -> bool:
    """Whether equal images contradict each other by split, patient or mask; else the copy is only superfluous."""
    return any(len({getattr(info, word) for info in same}) > 1 for word in ("split", "patient", "truth_sha256"))


def _leaks(cases: Sequence[Case], allow_leaks: bool) -> Iterable[Finding]:
    for splits in leaks(cases):
        where = "; ".join(f"{split}: {names(ids)}" for split, ids in splits.items())
        ids = tuple(case for own in splits.values() for case in own)
        text = f"Scans of one patient lie in {len(splits)} splits ({where}); split by patient with --split."
        yield Finding("leak", text, ids, fault=not allow_leaks)


def _mixtures(cases: Sequence[CaseInfo]) -> Iterable[Finding]:
    units = defaultdict(list)
    for info in cases:
        units[info.unit].append(info.id)
    if len(units) > 1:
        words = "; ".join(f"{unit or 'no unit'}: {names(ids)}" for unit, ids in units.items())
        text = f"The images are in different units ({words}); give them one with --unit, or make two stores."
        yield Finding("unit", text, tuple(case for ids in units.values() for case in ids))
    rare = defaultdict(list)
    marked = [info for info in cases if info.truth_ml]
    for info in marked:
        for value in info.truth_ml:
            rare[value].append(info.id)
    for value, ids in rare.items():
        if len(ids) == 1 and len(marked) >= 10:
            yield Finding("labels", f"Label {value} occurs in one case only ('{ids[0]}'); check it.", tuple(ids), False)


def names(ids: Sequence[str]) -> str:
    """A few cases by name, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in list(ids)[:_NAMED])
    return f"{shown} and {len(ids) - _NAMED} more" if len(ids) > _NAMED else shown


def in_words(findings: Sequence[Finding], most: int = 40) -> str:
    """All findings as lines, faults first, at most so many of each kind; the rest is counted."""
    lines = []
    for fault, title in ((True, "fault"), (False, "warning")):
        by_kind: dict[str, list[Finding]] = defaultdict(list)
        for finding in findings:
            if finding.fault == fault:
                by_kind[finding.kind].append(finding)
        for kind, own in by_kind.items():
            lines += [f"{title} ({kind}): {finding.text}" for finding in own[:most]]
            if len(own) > most:
                lines.append(f"{title} ({kind}): {len(own) - most} more of this kind; --report lists them all.")
    return "\n".join(lines)
