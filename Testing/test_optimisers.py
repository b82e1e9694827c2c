"""Optimisers and schedules: the papers' numbers arrive, the formulas are right, the state comes back."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from NeuraxisLib.errors import InputError
from Training.optimisers import OPTIMISERS, SCHEDULES, Schedule, optimiser_of

#: What each paper's code gave: options -> class and a few of the numbers that torch must then hold.
PAPERS = {
    "SLEX-Net": (
        {"optimiser": "adam", "learning_rate": 1e-5, "weight_decay": 6e-4, "betas": [0.97, 0.999]},
        torch.optim.Adam, {"lr": 1e-5, "weight_decay": 6e-4, "betas": (0.97, 0.999), "eps": 1e-8},
    ),
    "DR-UNet": (
        {"optimiser": "adam", "learning_rate": 2e-4, "epsilon": 1e-7},
        torch.optim.Adam, {"lr": 2e-4, "weight_decay": 0, "betas": (0.9, 0.999), "eps": 1e-7},
    ),
    "HemSeg": (
        {"optimiser": "adamw", "learning_rate": 0.01, "weight_decay": 0.01},
        torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.01},
    ),
    "nnU-Net": (
        {"optimiser": "sgd", "learning_rate": 0.01, "momentum": 0.99, "weight_decay": 3e-5},
        torch.optim.SGD, {"lr": 0.01, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5},
    ),
    "hourglass": (
        {"optimiser": "rmsprop", "learning_rate": 2.5e-4},
        torch.optim.RMSprop, {"lr": 2.5e-4, "momentum": 0, "weight_decay": 0, "alpha": 0.99},
    ),
}  # fmt: skip


@pytest.mark.parametrize("paper", PAPERS)
def test_the_papers_numbers_arrive(paper):
    options, kind, numbers = PAPERS[paper]
    made = optimiser_of(nn.Linear(2, 1).parameters(), options)
    assert type(made) is kind
    assert {name: made.param_groups[0][name] for name in numbers} == numbers


def test_the_default_is_adamw_as_before():
    made = optimiser_of(nn.Linear(2, 1).parameters(), {"learning_rate": 1e-3, "weight_decay": 1e-4})
    same = torch.optim.AdamW(nn.Linear(2, 1).parameters(), lr=1e-3, weight_decay=1e-4)
    assert type(made) is torch.optim.AdamW and {**made.defaults, "fused": None} == same.defaults


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_goes_downhill(name):
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    made = optimiser_of([weight], {"optimiser": name, "learning_rate": 0.05, "momentum": 0.5})
    for _ in range(100):
        made.zero_grad()
        weight.square().sum().backward()
        made.step()
    assert float(weight.detach().square().sum()) < 0.5


def test_faults_are_named():
    parameters = list(nn.Linear(2, 1).parameters())
    with pytest.raises(InputError, match="no optimiser 'lion'; choose one of: adam, adamw, sgd, rmsprop"):
        optimiser_of(parameters, {"optimiser": "lion", "learning_rate": 1})
    with pytest.raises(InputError, match="'adam' refuses the recipe's numbers"):
        optimiser_of(parameters, {"optimiser": "adam", "learning_rate": 1, "betas": [1.5, 0.9]})
    with pytest.raises(InputError, match="no schedule 'cyclic'; choose one of: constant, cosine, step, milestones, "):
        Schedule({"schedule": "cyclic"}, 10)


# -- schedules -------------------------------------------------------------------------------------------------------


def rates(options: dict, steps: int) -> list[float]:
    schedule = Schedule(options, steps)
    return [schedule.rate(step) for step in range(steps)]


def test_cosine_with_warmup():
    found = rates({"schedule": "cosine", "warmup": 4}, 104)
    assert found[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert found[54] == pytest.approx(0.51) and found[-1] == pytest.approx(0.02, abs=1e-3)
    assert found[4:] == sorted(found[4:], reverse=True)


def test_warmup_comes_before_every_schedule():
    for name in SCHEDULES:
        assert rates({"schedule": name, "warmup": 2}, 10)[:2] == [0.5, 1.0]


def test_constant_and_poly():
    assert set(rates({"schedule": "constant"}, 7)) == {1.0}
    found = rates({"schedule": "poly"}, 10)
    assert found[0] == 1 and found[5] == pytest.approx(0.5**0.9) and found[9] == pytest.approx(0.1**0.9)


@pytest.mark.parametrize("every,factor,steps", [(20, 0.1, 100), (10, 0.9, 200)], ids=["SLEX-Net", "HemSeg"])
def test_step_is_torch_s(every, factor, steps):
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.StepLR(optimiser, every, factor)
    expected = []
    for _ in range(steps):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        theirs.step()
    assert rates({"schedule": "step", "schedule_every": every, "schedule_factor": factor}, steps) == pytest.approx(
        expected, rel=1e-9
    )


PLATEAU = {"schedule": "plateau", "schedule_patience": 3, "schedule_factor": 0.5}


def test_plateau_falls_at_the_last_score_of_its_patience_and_starts_anew():
    schedule, found = Schedule(PLATEAU, 100), []
    for score in (0.1, 0.2, 0.2, 0.20005, 0.1, 0.3, math.nan, 0.3, 0.2, 0.2, 0.2, 0.2):
        schedule.note(score)
        found.append(schedule.rate(50))
    assert found == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_plateau_goes_on_where_it_was():
    scores = [0.1, 0.3, 0.3, 0.2, 0.1, 0.4, 0.2, 0.2, 0.2, 0.2]
    straight = Schedule(PLATEAU, 100)
    for score in scores:
        straight.note(score)
    for stop in range(len(scores)):
        first = Schedule(PLATEAU, 100)
        for score in scores[:stop]:
            first.note(score)
        second = Schedule(PLATEAU, 100)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        for score in scores[stop:]:
            second.note(score)
        assert second.state_dict() == straight.state_dict() and second.rate(9) == straight.rate(9)


def test_only_plateau_heeds_scores():
    for name in ("constant", "cosine", "step", "poly"):
        schedule = Schedule({"schedule": name, "schedule_patience": 1}, 50)
        before = schedule.rate(30)
        for _ in range(5):
            schedule.note(0.0)
        assert schedule.rate(30) == before
