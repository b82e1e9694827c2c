"""Which perfusion map a file or series is, by the names that vendors and researchers give it."""

from __future__ import annotations

import re

_PHRASES = {
    r"(?:cerebral\s*)?blood\s*flow": " cbf ",
    r"(?:cerebral\s*)?blood\s*vol(?:ume)?": " cbv ",
    r"mean\s*transit(?:\s*time)?": " mtt ",
    r"time\s*to\s*(?:the\s*)?max(?:imum)?": " tmax ",
    r"time\s*to\s*peak": " ttp ",
    r"t\s*-?\s*max": " tmax ",
    r"max(?:imum)?\s*intensity(?:\s*projection)?": " mip ",
}
#: syngo's names end in D (by deconvolution) or M; r stands for regional or relative.
_WORD = re.compile(r"(?:r|rel|abs|q|rgb)?(cbf|cbv|mtt|ttp|tmax)(?:d|m|maps?|rgb|colou?r|col|\d+)?")
_OTHER_WORDS = {
    "bf": "cbf", "bv": "cbv", "delay": "delay", "dly": "delay", "dt": "delay", "mip": "mip", "tmip": "mip",
}  # fmt: skip
#: Words of pictures and masks made from maps.
_NOT_MAPS = {
    "penumbra", "penumbracore", "core", "mismatch", "mask", "seg", "segmentation", "label", "labels", "overlay",
    "summary", "report", "overview", "confidence", "uncertainty", "threshold", "lesion", "std", "variance",
}  # fmt: skip


def kind_of(*texts: str) -> str | None:
    """The map that the first telling text names, such as ``"tmax"`` for ``"TMAXD RGB #2020"``; None if none does.

    A text that names two maps, or a mask or picture made from maps, ends the search.
    """
    for text in texts:
        words = _words(text)
        kinds = {kind for word in words if (kind := _kind_of_word(word))}
        if kinds:
            return kinds.pop() if len(kinds) == 1 and not _NOT_MAPS & set(words) else None
    return None


def _words(text: str) -> list[str]:
    text = re.sub(r"[_\-]+", " ", text.lower())
    for phrase, word in _PHRASES.items():
        text = re.sub(rf"\b{phrase}\b", word, text)
    return re.findall(r"[a-z]+\d*", text)


def _kind_of_word(word: str) -> str | None:
    match = _WORD.fullmatch(word)
    return match[1] if match else _OTHER_WORDS.get(word)
