"""Label tables: what each value of a task's label map means, its colour and its codes, in one CSV.

The CSV is a colour table that Slicer 5.10 and later reads as it is (``LabelValue, Name, Color_R ... Color_A`` in
0..255, then scheme, value and meaning of category, type, type modifier, region and region modifier); segment names,
colours, terminology, DICOM codes and reports are all taken from it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from NeuraxisLib.errors import InputError

#: Terminology contexts: types are those of our label tables, which the Neuraxis module gives to Slicer (Slicer's own
#: lists lack infarct, ischemia and disc); regions are in a list that Slicer ships.
TYPE_CONTEXT = "Segmentation category and type - Neuraxis"
REGION_CONTEXT = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class CodedConcept:
    """A code of a coding scheme, e.g. ``CodedConcept("SCT", "50960005", "Hemorrhage")``; all empty for none."""

    scheme: str = ""
    value: str = ""
    meaning: str = ""

    def serialise(self) -> str:
        """``scheme^code^meaning``, the form that vtkSegment's terminology string is made of."""
        return f"{self.scheme}^{self.value}^{self.meaning}"

    def __bool__(self) -> bool:
        return bool(self.value)


@dataclass(frozen=True)
class Label:
    """One entry of a label table.

    Attributes:
        value: the voxel value, 1..255.
        name: segment name.
        color: (red, green, blue), 0..255 each.
        opacity: 0..255.
        category, type, type_modifier, region, region_modifier: what it is and where, as codes.
    """

    value: int
    name: str
    color: tuple[int, int, int]
    opacity: int = 255
    category: CodedConcept = CodedConcept()
    type: CodedConcept = CodedConcept()
    type_modifier: CodedConcept = CodedConcept()
    region: CodedConcept = CodedConcept()
    region_modifier: CodedConcept = CodedConcept()

    @property
    def color_fractions(self) -> tuple[float, float, float]:
        """The colour as VTK and MRML take it, 0..1."""
        red, green, blue = self.color
        return red / 255, green / 255, blue / 255

    @property
    def terminology(self) -> str:
        """The string for ``vtkSegment.SetTerminology`` and for the ``TerminologyEntry`` tag of a .seg.nrrd file.

        Seven parts: context ~ category ~ type ~ type modifier ~ anatomic context ~ region ~ region modifier.
        """
        return "~".join(
            (
                TYPE_CONTEXT,
                self.category.serialise(),
                self.type.serialise(),
                self.type_modifier.serialise(),
                REGION_CONTEXT,
                self.region.serialise(),
                self.region_modifier.serialise(),
            )
        )


@dataclass(frozen=True)
class LabelTable:
    """The labels of a task, in the order of the file."""

    entries: tuple[Label, ...]

    @classmethod
    def read(cls, path: str | Path) -> LabelTable:
        """Read a label table.

        Raises:
            InputError: the file cannot be read, lacks a column, or holds a value twice or outside 1..255.
        """
        name = Path(path).name
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                entries = tuple(_read_row(row) for row in csv.DictReader(file) if any(row.values()))
        except OSError as error:
            raise InputError(f"The label table {name} cannot be read; reinstall the extension.") from error
        except (KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
            raise InputError(
                f"The label table {name} is not a Slicer colour table "
                "(LabelValue, Name, Color_R, Color_G, Color_B); correct it or reinstall the extension."
            ) from error
        values = [entry.value for entry in entries]
        if not values or len(set(values)) != len(values) or min(values) < 1 or max(values) > 255:
            raise InputError(f"The label table {name} must give each label its own value from 1 to 255; correct it.")
        return cls(entries)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, value: int) -> Label:
        """The label with that voxel value; KeyError if there is none."""
        for entry in self.entries:
            if entry.value == value:
                return entry
        raise KeyError(value)

    def named(self, name: str) -> Label:
        """The label with that name; KeyError if there is none."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)


def _read_row(row: dict[str, str]) -> Label:
    """One CSV row as a Label; ValueError or KeyError where it is not one."""

    def code(column: str) -> CodedConcept:
        parts = ("CodingScheme", "CodeValue", "CodeMeaning")
        return CodedConcept(*((row.get(f"{column}_{part}") or "").strip() for part in parts))

    color = tuple(int(row[f"Color_{channel}"]) for channel in "RGB")
    opacity = int(row.get("Color_A") or 255)
    if not all(0 <= channel <= 255 for channel in (*color, opacity)):
        raise ValueError("colour outside 0..255")
    return Label(
        value=int(row["LabelValue"]),
        name=row["Name"].strip(),
        color=color,
        opacity=opacity,
        category=code("Category"),
        type=code("Type"),
        type_modifier=code("TypeModifier"),
        region=code("Region"),
        region_modifier=code("RegionModifier"),
    )
