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


def test_missing_packages(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("# needed\nnumpy>=1.20  # here\nnumpy>=999\nno-such-package-here\nno-such-package-here>=2\n\n")
    assert panel.missing_packages(path) == ["numpy>=999", "no-such-package-here", "no-such-package-here>=2"]


@pytest.mark.parametrize(
    ("stored", "arguments"),
    [
        ({}, {"python": None, "threads": None}),
        ({panel.PYTHON_SETTING: " ", panel.THREADS_SETTING: "0"}, {"python": None, "threads": None}),
        ({panel.PYTHON_SETTING: "/opt/python", panel.THREADS_SETTING: "3"}, {"python": "/opt/python", "threads": 3}),
    ],
)
def test_worker_settings(stored, arguments):
    assert panel.worker_settings(stored.get) == arguments


@pytest.mark.parametrize(("system", "choice"), [("darwin", "mps"), ("linux", "cuda"), ("win32", "cuda")])
def test_device_choices_are_those_of_the_system(monkeypatch, system, choice):
    monkeypatch.setattr(panel.sys, "platform", system)
    assert list(panel.device_choices()) == ["auto", "cpu", choice]
