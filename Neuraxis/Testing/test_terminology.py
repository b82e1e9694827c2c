"""Slicer's terminologies know every code and colour of the label tables once Neuraxis has started."""

from __future__ import annotations

import sys

import pytest

from NeuraxisLib.labels import TYPE_CONTEXT, LabelTable
from NeuraxisLib.task import TASKS, get_task
from Testing.slicer_stand_in.fixtures import application, stand_in  # noqa: F401


@pytest.fixture
def logic(application):  # noqa: F811
    """Slicer's logic of terminologies, after start-up."""
    sys.modules["Neuraxis"].registerTerminology()
    return application.logics.modules["Terminologies"]


def test_the_context_is_loaded(logic):
    assert logic.IsTerminologyContextLoaded(TYPE_CONTEXT)


@pytest.mark.parametrize("task", TASKS)
def test_category_type_and_colour_of_every_label_are_in_it(logic, task):
    import slicer

    for label in LabelTable.read(get_task(task).resources / "labels.csv"):
        found = slicer.vtkSlicerTerminologyType()
        types = {}
        for number in range(logic.GetNumberOfCategoriesInTerminology(TYPE_CONTEXT)):
            category = slicer.vtkSlicerTerminologyCategory()
            logic.GetNthCategoryInTerminology(TYPE_CONTEXT, number, category)
            for place in range(logic.GetNumberOfTypesInTerminologyCategory(TYPE_CONTEXT, category)):
                logic.GetNthTypeInTerminologyCategory(TYPE_CONTEXT, category, place, found)
                types[category.GetCodeValue(), found.GetCodeValue()] = found.GetCodeMeaning()
        assert types[label.category.value, label.type.value] == label.type.meaning
