"""The family of uncertainties: formulas by hand, and what each map says of itself."""

from __future__ import annotations

import numpy as np
import pytest

from NeuraxisLib.errors import InputError
from NeuraxisLib.uncertainty_methods import CHOICES, METHODS, method_named, path_uncertainty


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.0, 1.6118e-6), (0.1, 0.230259), (np.exp(-1), np.exp(-1)), (0.5, 0.346574), (0.9, 0.0948245), (1.0, 0.0)],
)
def test_the_paper_s_formula(p: float, expected: float) -> None:
    assert path_uncertainty(np.array([p]))[0] == pytest.approx(expected, rel=1e-4)


def test_the_paper_s_formula_has_its_maximum_at_one_over_e() -> None:
    p = np.linspace(0, 1, 100_001)
    values = path_uncertainty(p)
    assert np.isfinite(values).all()
    assert p[values.argmax()] == pytest.approx(np.exp(-1), abs=1e-4)
    assert METHODS["slex_paper"].value_range == (0.0, pytest.approx(values.max(), abs=1e-6))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "slex_paper"])
def test_all_others_are_entropies_in_bits(name: str) -> None:
    method = METHODS[name]
    np.testing.assert_allclose(method.of(np.array([0.0, 0.11, 0.5, 1.0])), [0, 0.499916, 1, 0], atol=1e-6)
    assert (method.unit, method.value_range) == ("bits", (0.0, 1.0))


def test_each_says_what_it_is_in_one_sentence() -> None:
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    for method in METHODS.values():
        assert method.description.endswith(".") and method.description.count(". ") == 0
    assert "this patient's own images" in METHODS["mc_batchnorm"].description


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="no uncertainty 'evidential'; choose one of: model, entropy, slex_paper"):
        method_named("evidential")
    assert CHOICES[0] == "model"
