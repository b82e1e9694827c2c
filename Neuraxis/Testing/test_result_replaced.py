"""What a result folder may replace, what it may not, and what it never holds."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from test_result_folder import FILES, TABLE, axial, entries, make_result

from NeuraxisLib.errors import OutputError
from NeuraxisLib.result_folder import read_result, write_result
from NeuraxisLib.run import remove_leftovers


def test_free_text_of_the_source_is_not_written(tmp_path):
    source = replace(axial(), meta={"modality": "CT", "description": "Head Smith John 1950"})
    folder = write_result(make_result(source), tmp_path / "case", TABLE)
    assert read_result(folder).source.meta == {"modality": "CT"}
    assert not any(b"Smith" in path.read_bytes() for path in folder.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can ask whether a process is alive")
def test_leftovers_of_a_dead_process_go_but_the_earlier_result_comes_back(tmp_path):
    dead = 2**22 + 1  # above the largest process id of Linux
    output = tmp_path / "case [1]"
    moved = write_result(make_result(), tmp_path / f".{output.name}.old.{dead}.partial", TABLE)
    unfinished = tmp_path / f".{output.name}.{dead}.partial"
    unfinished.mkdir()
    remove_leftovers(output)
    assert entries(tmp_path) == {output.name} and not moved.exists()
    assert read_result(output).warnings == ["Beware."]
    unfinished.mkdir()
    output.rename(moved)
    write_result(make_result(), output, TABLE)
    remove_leftovers(output)
    assert entries(tmp_path) == {output.name}


def test_what_a_user_put_beside_an_earlier_result_is_not_deleted(tmp_path):
    folder = write_result(make_result(), tmp_path / "case", TABLE)
    (folder / ".DS_Store").write_text("")
    write_result(make_result(), folder, TABLE)
    (folder / "corrected.seg.nrrd").write_text("an hour of work")
    with pytest.raises(OutputError, match=r"holds 'corrected.seg.nrrd' beside an earlier result"):
        write_result(make_result(), folder, TABLE)
    assert entries(folder) == FILES | {"corrected.seg.nrrd"}
    assert entries(tmp_path) == {"case"}


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other"}', '{"schema": "neuraxis-result", "maps": []}'])
def test_a_result_json_of_others_does_not_make_a_folder_ours(tmp_path, text):
    other = tmp_path / "other"
    other.mkdir()
    (other / "result.json").write_text(text)
    with pytest.raises(OutputError):
        write_result(make_result(), other, TABLE)
    assert (other / "result.json").read_text() == text
