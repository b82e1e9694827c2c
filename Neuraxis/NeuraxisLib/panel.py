"""Words and settings that the panels of all modules share; plain Python, so that it can be tested without Slicer."""

from __future__ import annotations

import html
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from NeuraxisLib.translation import translator

_ = translator(__name__)
#: Keys of the application settings that the Neuraxis module writes and every worker is started with.
PYTHON_SETTING, THREADS_SETTING = "Neuraxis/WorkerPython", "Neuraxis/WorkerThreads"
DEVICE_SETTING, MEMORY_SETTING = "Neuraxis/WorkerDevice", "Neuraxis/WorkerMemoryGB"
#: File or address of a further index of models.
INDEX_SETTING = "Neuraxis/ModelIndex"


def research_use_notice() -> str:
    """The :data:`~NeuraxisLib.RESEARCH_USE_NOTICE` in the user's language."""
    return _("For research use only. Not a medical device; not for diagnosis or treatment decisions.")


def device_choices() -> dict[str, str]:
    """Device name -> what the panel calls it, for this kind of machine; OpenVINO where it is installed."""
    choices = {"auto": _("Automatic"), "cpu": _("CPU")}
    card = {"mps": _("Apple GPU")} if sys.platform == "darwin" else {"cuda": _("NVIDIA GPU")}
    return choices | card | ({"openvino": _("OpenVINO (CPU)")} if is_installed("openvino") else {})


def worker_settings(value_of: Callable[[str], Any]) -> dict[str, Any]:
    """Arguments for a WorkerClient from the application settings; ``value_of(key)`` reads one of them."""
    python = str(value_of(PYTHON_SETTING) or "").strip()
    device = str(value_of(DEVICE_SETTING) or "auto")
    return {
        "python": python or None,
        "threads": _whole(value_of(THREADS_SETTING)) or None,
        "device": device if device in device_choices() else "auto",
        "memory_limit_gb": _whole(value_of(MEMORY_SETTING)) or None,
    }


def _whole(value: Any) -> int:
    """A stored number from 0 on; what is none (a settings file that was edited) counts as 0."""
    try:
        return max(0, int(value or 0))
    except (TypeError, ValueError):
        return 0


def missing_packages(requirements: str | Path) -> list[str]:
    """Lines of a requirements.txt whose package is not installed at all or is older than its floor."""
    return [line for line in _requirement_lines(requirements) if not is_installed(line)]


def is_installed(requirement: str) -> bool:
    """Whether a requirement of the form ``name`` or ``name>=floor`` is met; nothing is imported."""
    name, floor = requirement.partition(">=")[::2]
    version = _version(name.strip())
    return bool(version) and _release(version) >= _release(floor)


def is_torch_there(floor: str) -> bool:
    """Whether torch is installed and not older than ``floor`` (such as ``">=2.2"``); it is not imported.

    A folder without the package, as a removal that failed leaves it, does not count.
    """
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return False
    if spec is None or spec.origin is None:
        return False
    return not _version("torch") or is_installed(f"torch{floor}")


def _version(package: str) -> str:
    """Version of a package; empty if it has no record, or one without a version as a broken installation leaves it."""
    return _version_in(package, _import_places(), importlib.metadata.version)


def _import_places() -> tuple[tuple[str, int], ...]:
    """The folders that packages are imported from, with the time of their last change: that of an installation."""
    found = []
    for place in sys.path:
        with suppress(OSError):
            found.append((place, os.stat(place or ".").st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=64)
def _version_in(package: str, places: tuple[tuple[str, int], ...], version_of: Callable[[str], str]) -> str:
    """Looked up once as long as nothing is installed: panels ask often, and a record takes milliseconds to read."""
    try:
        return version_of(package) or ""
    except (importlib.metadata.PackageNotFoundError, FileNotFoundError, KeyError):
        return ""  # the last two where the package importlib_metadata stands in for Python's own


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _requirement_lines(path: str | Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def plain_tip(text: str) -> str:
    """A tool tip that shows a text of others as it is: left to itself, Qt takes one with a tag for HTML."""
    return f"<p>{html.escape(text)}</p>" if "<" in text else text


def megabytes(size_bytes: int) -> str:
    """Such as ``"5.6 MB"``; small files are not 0."""
    return f"{max(size_bytes / 1e6, 0.1 if size_bytes else 0.0):.1f} MB"


def gigabytes(size_bytes: float) -> str:
    """Such as ``"16 GB"``."""
    return f"{size_bytes / 1e9:.0f} GB"


def model_card(header: Mapping[str, Any]) -> str:
    """A model's card as a few lines of rich text: what it is, what it may be used for, how good it was."""
    lines = [f"<b>{html.escape(header['title'])}</b>", html.escape(header["notice"])]
    lines.append(_("Licence: {licence}").format(licence=html.escape(header["licence"])))
    trained = trained_on(header.get("training", {}))
    if trained:
        lines.append(_("Trained on: {data}").format(data=html.escape(trained)))
    scores = [f"{name} {value}" for name, value in score_words(header["scores"])]
    if scores:
        lines.append(_("Scores: {scores}").format(scores=html.escape("; ".join(scores))))
    return "<br>".join(lines)


def trained_on(training: Mapping[str, Any]) -> str:
    """What a model's header says of its training, in a few sentences: data, history, steps and day."""
    history = training.get("history")
    told = [str(line) for line in history] if isinstance(history, (list, tuple)) else []
    words = [str(training.get("data") or ("simulated scans" if training.get("simulated") is True else ""))]
    words += [_shortened("; ".join(told))]
    if training.get("steps"):
        words += [" ".join(str(word) for word in (training["steps"], "steps,", training.get("date", "")) if word)]
    return ". ".join(word.strip(" .,") for word in words if word.strip(" .,"))


def _shortened(text: str, longest: int = 400) -> str:
    return text if len(text) <= longest else text[:longest].rpartition(" ")[0] + " ..."


def score_words(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers of a (nested) score table, in words and to three digits."""
    return [(name.replace("_", " "), _number(value)) for name, value in _scores(scores)]


def _scores(scores: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """The numbers of a (nested) score table, named by their path."""
    found = []
    for name, value in scores.items():
        if isinstance(value, Mapping):
            found += _scores(value, f"{prefix}{name} ")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((f"{prefix}{name}", value))
    return found


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def time_left(seconds: float | None) -> str:
    """Such as ``"about 40 s left"``; empty when it is not known."""
    if seconds is None:
        return ""
    if seconds < 90:
        return _("about {seconds} s left").format(seconds=max(1, round(seconds)))
    return _("about {minutes} min left").format(minutes=round(seconds / 60))


def progress_line(stage: str, seconds: float | None) -> str:
    """The line under the progress bar: the stage and, once it can be told, the time left."""
    return ", ".join(words for words in (stage, time_left(seconds)) if words)
