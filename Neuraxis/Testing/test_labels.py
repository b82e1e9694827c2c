"""Label tables: our own reading, and Slicer's reading of the same file."""

from __future__ import annotations

from pathlib import Path

import pytest

from NeuraxisLib.errors import InputError
from NeuraxisLib.labels import CodedConcept, LabelTable

HEMORRHAGE = Path(__file__).resolve().parents[2] / "HemorrhageSeg" / "HemorrhageSegLib" / "Resources" / "labels.csv"
HEAD = "LabelValue,Name,Color_R,Color_G,Color_B,Color_A\n"


def test_hemorrhage_table_holds_the_published_codes():
    (label,) = LabelTable.read(HEMORRHAGE)
    assert (label.value, label.name, label.color, label.opacity) == (1, "Hemorrhage", (188, 65, 28), 255)
    assert label.category == CodedConcept("SCT", "49755003", "Morphologically Altered Structure")
    assert label.type == CodedConcept("SCT", "50960005", "Hemorrhage")
    assert label.region == CodedConcept("SCT", "12738006", "Brain")
    assert not label.type_modifier
    assert label.color_fractions == pytest.approx((188 / 255, 65 / 255, 28 / 255))


def test_terminology_string_has_seven_parts():
    parts = LabelTable.read(HEMORRHAGE)[1].terminology.split("~")
    assert parts[1] == "SCT^49755003^Morphologically Altered Structure"
    assert parts[2] == "SCT^50960005^Hemorrhage"
    assert parts[5] == "SCT^12738006^Brain"
    assert [parts[3], parts[6]] == ["^^", "^^"]
    assert len(parts) == 7


def test_slicer_reads_the_file_as_a_colour_table():
    slicer = pytest.importorskip("slicer_core", reason="slicer-core is not installed")
    scene, node, storage = slicer.vtkMRMLScene(), slicer.vtkMRMLColorTableNode(), slicer.vtkMRMLColorTableStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(HEMORRHAGE))
    assert storage.ReadData(node)
    label = LabelTable.read(HEMORRHAGE)[1]
    color = [0.0] * 4
    node.GetColor(1, color)
    assert node.GetColorName(1) == label.name
    assert color[:3] == pytest.approx(label.color_fractions)
    entry = slicer.vtkSlicerTerminologyEntry()
    assert node.GetTerminologyAsString(1).split("~")[1:4] == label.terminology.split("~")[1:4]
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    logic.DeserializeTerminologyEntry(label.terminology, entry)
    assert entry.GetTypeObject().GetCodeValue() == "50960005"
    assert entry.GetRegionObject().GetCodeMeaning() == "Brain"


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEAD,
        "value,title\n1,blood\n",
        HEAD + "0,background,0,0,0,0\n",
        HEAD + "256,too large,0,0,0,255\n",
        HEAD + "1,one,1,2,3,255\n1,again,4,5,6,255\n",
        HEAD + "1,one,red,2,3,255\n",
        HEAD + "1,one,300,2,3,255\n",
        HEAD + "1\n",
    ],
)
def test_faulty_tables_are_refused_in_one_sentence(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"labels\.csv") as error:
        LabelTable.read(path)
    assert str(tmp_path) not in str(error.value)


def test_missing_table_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        LabelTable.read(tmp_path / "none.csv")


def test_lookup_by_value_and_name(tmp_path):
    path = tmp_path / "labels.csv"
    text = '"LabelValue","Name","Color_R","Color_G","Color_B"\n7,"A, quoted",1,2,3\n\n'
    path.write_text(text, encoding="utf-8-sig")
    table = LabelTable.read(path)
    assert table[7].name == "A, quoted"
    assert table.named("A, quoted").value == 7
    assert len(table) == 1
    with pytest.raises(KeyError):
        table[1]
    with pytest.raises(KeyError):
        table.named("a")
