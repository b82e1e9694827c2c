"""Which series of a study a task measures when nobody is there to choose: a rule per task, and its reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from NeuraxisLib.dicom_series import Series

_PROJECTIONS = ("MIP", "MINIP", "PROJECTION", "VRT", "VOLUME_RENDER", "SCREEN")


@dataclass(frozen=True)
class SeriesRule:
    """What a series must be, and which is taken where several are.

    Attributes:
        modality: such as ``"CT"``; empty for any.
        orientation: ``"axial"``, ``"sagittal"``, ``"coronal"``; empty for any.
        least_slices: shorter series are scouts or single pictures.
        thickness_mm: (least, most) wished; a series outside is taken where there is no other.
        soft_kernel: whether a soft kernel is wished.
        no_contrast: whether a series without contrast agent is wished.
        wished, avoided: words in the description of the series, any case.
        whole_study: whether the task's own reader finds its images in the study (perfusion: several series).
    """

    modality: str = ""
    orientation: str = ""
    least_slices: int = 2
    thickness_mm: tuple[float, float] | None = None
    soft_kernel: bool = False
    no_contrast: bool = False
    wished: tuple[str, ...] = ()
    avoided: tuple[str, ...] = ()
    whole_study: bool = False


@dataclass(frozen=True)
class Choice:
    """What a rule chose among the series of a study.

    Attributes:
        series: the one to measure; None if none will do.
        reason: one line without free text of the scan: what it is, what it was preferred for, what was left out.
    """

    series: Series | None
    reason: str


def choose_by_rule(rule: SeriesRule, series: list[Series]) -> Choice:
    """The series of one study that the rule takes; never asks, since a batch runs alone."""
    usable, left_out = [], []
    for entry in series:
        fault = _why_not(rule, entry)
        if fault:
            left_out.append(f"{entry.info.key} ({fault})")
        else:
            usable.append(entry)
    others = f"; left out: {', '.join(left_out)}" if left_out else ""
    if not usable:
        return Choice(None, f"none of {len(series)} series will do{others}")
    best, reasons = usable, []
    for words, wish in _wishes(rule):
        fitting = [entry for entry in best if wish(entry)]
        if fitting and len(fitting) < len(best):
            reasons.append(words)
        best = fitting or best
    most = max(len(entry.headers) for entry in best)
    longest = [entry for entry in best if len(entry.headers) == most]
    if len(longest) < len(best):
        reasons.append("most slices")
    if len(longest) > 1:
        reasons.append(f"the first of {len(longest)} that are alike")
    why = f": {', '.join(reasons)}" if reasons else ""
    return Choice(longest[0], f"{in_words(longest[0])}, 1 of {len(usable)} that would do{why}{others}")


def in_words(entry: Series) -> str:
    """A series without its free text: key, modality, orientation, kernel, thickness, slices."""
    info = entry.info
    thickness = f"{info.thickness_mm:g} mm" if info.thickness_mm else ""
    words = (info.modality, info.orientation, info.kernel, thickness, info.part)
    return f"series {info.key} ({' '.join(word for word in words if word)}, {info.slices} slices)"


def _why_not(rule: SeriesRule, entry: Series) -> str:
    info = entry.info
    if info.excluded:
        return info.excluded
    if rule.modality and info.modality != rule.modality:
        return info.modality or "no modality"
    if rule.orientation and info.orientation not in (rule.orientation, "oblique"):
        return info.orientation
    return f"{info.slices} slices" if len(entry.headers) < rule.least_slices else ""


def _wishes(rule: SeriesRule) -> list[tuple[str, Callable[[Series], bool]]]:
    """(words, test) of what is wished, most important first; as the reader of one folder wishes (dicom_series)."""
    from NeuraxisLib.dicom_series import kernel_class

    def described(entry: Series, words: tuple[str, ...]) -> bool:
        return any(word.casefold() in entry.info.description.casefold() for word in words)

    wishes = [("not oblique", lambda s: s.info.orientation == rule.orientation)] if rule.orientation else []
    wishes.append(("no projection", lambda s: not any(word in s.info.image_type for word in _PROJECTIONS)))
    if rule.avoided:
        wishes.append(("description", lambda s: not described(s, rule.avoided)))
    if rule.wished:
        wishes.append(("description", lambda s: described(s, rule.wished)))
    if rule.soft_kernel:
        wishes.append(("not a sharp kernel", lambda s: kernel_class(s.info.kernel) != "sharp"))
        wishes.append(("soft kernel", lambda s: kernel_class(s.info.kernel) == "soft"))
    if rule.no_contrast:
        wishes.append(("no contrast agent", lambda s: not s.headers[0].contrast))
    wishes.append(("original images", lambda s: "ORIGINAL" in s.info.image_type))
    if rule.thickness_mm:
        low, high = rule.thickness_mm
        wishes.append(("thickness", lambda s: low <= (s.info.thickness_mm or 0.0) <= high))
    return wishes
