"""Words and settings of the panels."""

from __future__ import annotations

import pytest

from NeuraxisLib import panel

HEADER = {
    "title": "Starter <1>",
    "notice": "Trained on simulation, research use only.",
    "licence": "Apache-2.0",
    "scores": {"planted": {"dice": 0.91234, "cases": 8}, "note": "text is left out", "passed": True},
}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0.2, "about 1 s left"), (40, "about 40 s left"), (89, "about 89 s left"), (150, "about 2 min left")],
)
def test_time_left(seconds, words):
    assert panel.time_left(seconds) == words


def test_progress_line():
    assert panel.progress_line("Reading", None) == "Reading"
    assert panel.progress_line("Reading", 3.0) == "Reading, about 3 s left"


def test_model_card_tells_what_matters_and_escapes_the_rest():
    card = panel.model_card(HEADER)
    assert "<b>Starter &lt;1&gt;</b>" in card and HEADER["notice"] in card and "Apache-2.0" in card
    assert "Scores: planted dice 0.912; planted cases 8" in card and "passed" not in card


def test_model_card_without_scores_has_no_such_line():
    assert "Scores" not in panel.model_card({**HEADER, "scores": {}})


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"data": "100 heads <&>.", "recipe": {"epochs": 3}, "steps": 5, "date": "2026-01-02"},
         "100 heads &lt;&amp;&gt;. 5 steps, 2026-01-02"),
        ({"simulated": True, "history": ["first", "second"], "steps": 5}, "simulated scans. first; second. 5 steps"),
        ({"simulated": False, "history": "odd"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_model_card_says_what_a_model_was_trained_on(training, words):
    card = panel.model_card({**HEADER, "training": training})
    assert card.partition("Trained on: ")[2].partition("<br>")[0] == (words or "")
    assert ("Trained on: " in card) is (words is not None)


def test_a_long_history_is_shortened():
    words = panel.trained_on({"history": ["word " * 200]})
    assert len(words) < 410 and words.endswith("word")


def test_sizes_in_words():
    assert [panel.megabytes(size) for size in (0, 1300, 5_587_858)] == ["0.0 MB", "0.1 MB", "5.6 MB"]


def test_missing_packages(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("# needed\nnumpy>=1.20  # here\nnumpy>=999\nno-such-package-here\nno-such-package-here>=2\n\n")
    assert panel.missing_packages(path) == ["numpy>=999", "no-such-package-here", "no-such-package-here>=2"]


DEFAULTS = {"python": None, "threads": None, "device": "auto", "memory_limit_gb": None}


@pytest.mark.parametrize(
    ("stored", "changes"),
    [
        ({}, {}),
        ({panel.PYTHON_SETTING: " ", panel.THREADS_SETTING: "0", panel.MEMORY_SETTING: "0"}, {}),
        ({panel.PYTHON_SETTING: "/opt/python", panel.THREADS_SETTING: "3"}, {"python": "/opt/python", "threads": 3}),
        ({panel.DEVICE_SETTING: "cpu", panel.MEMORY_SETTING: 8}, {"device": "cpu", "memory_limit_gb": 8}),
        ({panel.DEVICE_SETTING: "abacus", panel.MEMORY_SETTING: "much", panel.THREADS_SETTING: "-2"}, {}),
    ],
)
def test_worker_settings(stored, changes):
    assert panel.worker_settings(stored.get) == {**DEFAULTS, **changes}


@pytest.mark.parametrize(("system", "choice"), [("darwin", "mps"), ("linux", "cuda"), ("win32", "cuda")])
def test_device_choices_are_those_of_the_system(monkeypatch, system, choice):
    monkeypatch.setattr(panel.sys, "platform", system)
    for there in (False, True):
        monkeypatch.setattr(panel, "is_installed", lambda package, there=there: there and package == "openvino")
        assert list(panel.device_choices()) == ["auto", "cpu", choice, *(["openvino"] if there else [])]
