"""The codes of the label tables as a terminology of Slicer, so that its Terminology dialog knows what our segments are.

Slicer's own lists lack infarct, ischemia and the intervertebral disc. The label tables are the one source: the file
that Slicer reads is written from them when it starts, into a temporary folder.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import slicer

from NeuraxisLib.labels import TYPE_CONTEXT, CodedConcept, Label, LabelTable
from NeuraxisLib.task import TASKS, get_task

_SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/segment-context-schema.json#"


def register_terminology() -> bool:
    """Give Slicer the terminology of all tasks; whether it took it."""
    tables = [LabelTable.read(get_task(name).resources / "labels.csv") for name in TASKS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Neuraxis.term.json"
        path.write_text(json.dumps(terminology_of(tables)), encoding="utf-8")
        name = slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(path))
    return name == TYPE_CONTEXT


def terminology_of(tables: Iterable[LabelTable]) -> dict[str, Any]:
    """Label tables as the document that Slicer reads: categories, in each its types with colours."""
    categories: dict[CodedConcept, dict[CodedConcept, Label]] = {}
    for table in tables:
        for label in table:
            categories.setdefault(label.category, {}).setdefault(label.type, label)
    listed = [
        {**_code(category), "showAnatomy": "true", "Type": [_type(label) for label in types.values()]}
        for category, types in categories.items()
    ]
    return {
        "SegmentationCategoryTypeContextName": TYPE_CONTEXT,
        "@schema": _SCHEMA,
        "SegmentationCodes": {"Category": listed},
    }


def _type(label: Label) -> dict[str, Any]:
    found = {**_code(label.type), "recommendedDisplayRGBValue": list(label.color)}
    if label.type_modifier:
        found["Modifier"] = [_code(label.type_modifier)]
    return found


def _code(concept: CodedConcept) -> dict[str, str]:
    """A code in the words of the document."""
    return {"CodingSchemeDesignator": concept.scheme, "CodeValue": concept.value, "CodeMeaning": concept.meaning}
