"""The published threshold rules, on values just below and above their limits, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from StrokeCTPLib.threshold_rules import BACKGROUND, CORE, PENUMBRA, THRESHOLD_RULES, mark

#: Normal tissue: mL/100 g/min, mL/100 g, s, s.
NORMAL = {"cbf": 60.0, "cbv": 4.0, "ttp": 5.0, "tmax": 1.0}
#: Rule -> deviations from normal tissue, and what the rule makes of them.
CASES = {
    "syngo": [({"cbv": 1.19}, CORE), ({"cbv": 1.21}, BACKGROUND), ({"cbf": 26.9}, PENUMBRA),
              ({"cbf": 27.1}, BACKGROUND), ({"cbf": 10, "cbv": 1}, CORE)],
    "bathla_2020": [({"cbf": 19.9}, CORE), ({"cbf": 20.1}, BACKGROUND), ({"tmax": 6.1}, PENUMBRA),
                    ({"tmax": 5.9}, BACKGROUND), ({"cbf": 19, "tmax": 9}, CORE)],
    "wintermark_2006": [({"cbv": 1.99}, CORE), ({"cbv": 2.01}, BACKGROUND), ({"cbf": 1}, BACKGROUND)],
    "campbell_2011": [({"cbf": 14.9}, CORE), ({"cbf": 15.1}, BACKGROUND)],
    "bivard_2014": [({"cbf": 17.4}, CORE), ({"cbf": 17.6}, BACKGROUND), ({"ttp": 15.1}, PENUMBRA),
                    ({"ttp": 14.9}, BACKGROUND)],
    "murphy_2006": [({"cbf": 13.2, "cbv": 1.12}, CORE), ({"cbf": 13.2, "cbv": 1.14}, PENUMBRA),
                    ({"cbf": 13.4, "cbv": 1.12}, PENUMBRA), ({"cbf": 24.9, "cbv": 2.14}, PENUMBRA),
                    ({"cbf": 24.9, "cbv": 2.16}, BACKGROUND), ({"cbf": 25.1, "cbv": 1}, BACKGROUND)],
    "defuse3": [({"tmax": 6.1}, PENUMBRA), ({"tmax": 5.9}, BACKGROUND)],
}  # fmt: skip


def voxel(deviation: dict[str, float]) -> dict[str, np.ndarray]:
    return {name: np.full((1, 1, 1), value) for name, value in {**NORMAL, **deviation}.items()}


@pytest.mark.parametrize("rule", THRESHOLD_RULES)
def test_limits(rule):
    assert mark(rule, voxel({})).item() == BACKGROUND
    for deviation, wanted in CASES[rule]:
        assert mark(rule, voxel(deviation)).item() == wanted, deviation


def test_outside_the_brain_and_without_values_nothing_is_marked():
    maps = {name: np.full((1, 2, 2), value) for name, value in {**NORMAL, "cbv": 0.5}.items()}
    maps["cbv"][0, 0, 0] = np.nan
    brain = np.array([[[True, True], [True, False]]])
    assert mark("syngo", maps, brain).tolist() == [[[BACKGROUND, CORE], [CORE, BACKGROUND]]]


def test_core_of_defuse_3_is_relative_to_healthy_tissue():
    maps = {"cbf": np.full((1, 1, 5), 40.0), "tmax": np.array([[[1.0, 1, 9, 9, 1]]])}
    maps["cbf"][0, 0] = [40, 50, 11.9, 12.1, 1000]  # healthy within the brain: 40 and 50 and, left out, a vessel
    brain = np.array([[[True, False, True, True, False]]])
    assert mark("defuse3", maps, brain).tolist() == [[[0, 0, CORE, PENUMBRA, 0]]]  # 30 % of 40
    assert mark("defuse3", maps).tolist()[0][0][2:4] == [CORE, CORE]  # 30 % of 50, the median of all three
    with pytest.raises(InputError, match="needs the map TMAX"):
        mark("defuse3", {"cbf": maps["cbf"]})


def test_other_display_ranges():
    assert mark("campbell_2011", voxel({"cbf": 20})).item() == BACKGROUND
    assert mark("campbell_2011", voxel({"cbf": 20}), ranges={"cbf": (0, 200)}).item() == CORE


def test_bad_input():
    with pytest.raises(InputError, match="no threshold rule 'rapid'; choose one of: syngo"):
        mark("rapid", voxel({}))
    with pytest.raises(InputError, match="needs the map TMAX"):
        mark("bathla_2020", {"cbf": np.zeros((1, 1, 1))})
    with pytest.raises(InputError, match="different grids"):
        mark("syngo", {"cbf": np.zeros((1, 1, 1)), "cbv": np.zeros((1, 1, 2))})
