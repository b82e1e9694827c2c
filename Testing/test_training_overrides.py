"""Recipes by name, and overrides that are wrong: what is said, and when."""

from __future__ import annotations

import pytest
from tiny_training import RECIPES, STARTER

from NeuraxisLib.errors import InputError
from Training import train
from Training.recipe import Recipe


def test_a_shipped_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = Recipe.read("hemorrhage_unet2d", ("fitting.batch=3",))
    assert named.data == Recipe.read(RECIPES / "hemorrhage_unet2d.toml", ("fitting.batch=3",)).data
    with pytest.raises(InputError, match="'hemorrhage_unet9' cannot be read"):
        Recipe.read("hemorrhage_unet9")


@pytest.mark.parametrize(
    "override, words",
    [("fitting.bach=4", "perhaps fitting.batch is meant"), ("nothing.like=4", "write section.key=value"),
     ("fitting.batch=four", "wrong type: 'four'; give a whole number"), ("fitting.clip=on", "'on'; give a number"),
     ("fitting.shares=1", "1; give a table")],
)  # fmt: skip
def test_a_wrong_override_says_what_is_wanted(override, words):
    with pytest.raises(InputError) as error:
        Recipe.read(STARTER, (override,))
    assert words in str(error.value)


def test_a_network_that_cannot_be_built_is_told_before_cases_are_prepared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("Training.data.data_of", lambda options, recipe: pytest.fail("prepared cases first"))
    words = [str(STARTER), str(tmp_path / "m.safetensors"), "--run", str(tmp_path / "run")]
    assert train.main([*words, "--set", "architecture.name=XNet"]) == 1
    assert "There is no network 'XNet'" in capsys.readouterr().err
    assert train.main([*words, "--set", "architecture.arguments.width=3"]) == 1
    assert "'DRUNet' cannot be built" in capsys.readouterr().err
