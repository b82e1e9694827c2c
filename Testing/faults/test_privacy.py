"""Nothing of the patient comes out where nobody asked for it: planted names are sought in all that is written."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from fault_support import neuraxis, neuraxis_process
from project_tree import ROOT
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from NeuraxisLib.dicom import list_series, read_series
from NeuraxisLib.errors import NeuraxisError
from NeuraxisLib.files import read_volume
from Testing import dicom_series as build

sys.path.append(str(ROOT / "StrokeCTP" / "Testing"))

#: What is planted, attribute by attribute; every value is found nowhere else.
PLANTED = {
    "PatientName": "KANARIENVOGEL^Hulda",
    "PatientID": "PID-8812-KANARI",
    "PatientBirthDate": "19010203",
    "PatientAddress": "Zwitscherweg 77 Kanaristadt",
    "PatientMotherBirthName": "FINKENSTEIN",
    "PatientTelephoneNumbers": "0815-4711-99",
    "OtherPatientIDs": "OPID-5150",
    "AccessionNumber": "ACC-90210-K",
    "InstitutionName": "Klinik Vogelsang",
    "InstitutionAddress": "Nestgasse 3",
    "ReferringPhysicianName": "AMSELFELD^Otto",
    "OperatorsName": "DROSSELBART^Ina",
    "StationName": "STATION-KANARI",
    "StudyID": "STUDY-KANARI",
    "StudyDescription": "Schaedel Hulda K.",
    "PatientComments": "wohnt bei KANARI",
    "ImageComments": "Anruf Frau Zwitscher",
    "ProtocolName": "Hulda_Protokoll",
    "RequestedProcedureDescription": "fuer Frau KANARIENVOGEL",
    "StudyDate": "20190317",
    "DeviceSerialNumber": "SN-KANARI-1",
}
#: What any of it would look like in a text, also in other spellings.
CANARIES = sorted({
    "KANARI", "Hulda", "PID-8812", "19010203", "1901-02-03", "03.02.1901", "Zwitscher", "FINKENSTEIN", "0815-4711",
    "OPID-5150", "ACC-90210", "Vogelsang", "Nestgasse", "AMSELFELD", "DROSSELBART", "20190317", "2019-03-17",
})  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A head CT in a folder named for its patient, with the names in files, headers and nested items."""
    images = build.series(build.SPARSE_MM, matrix=64, pixel_mm=3.4)
    for image in images:
        for word, value in PLANTED.items():
            setattr(image, word, value)
        nested = Dataset()
        nested.PatientName, nested.ReferencedSOPInstanceUID = PLANTED["PatientName"], image.SOPInstanceUID
        image.ReferencedImageSequence = Sequence([nested])
        image.add_new((0x0009, 0x0010), "LO", "KANARI PRIVATE")
        image.add_new((0x0009, 0x1001), "LO", "privat KANARIENVOGEL")
    return build.save(images, tmp_path_factory.mktemp("archive") / "KANARIENVOGEL_Hulda_19010203")


@pytest.fixture(scope="module")
def uids(study) -> list[str]:
    """The planted UIDs: study, series and one image."""
    import pydicom

    first = pydicom.dcmread(study / "0001.dcm")
    return [first.StudyInstanceUID, first.SeriesInstanceUID, first.SOPInstanceUID]


def found_in(text: str | bytes, uids: list[str]) -> list[str]:
    """The canaries in a text or in a file's bytes, in whatever case, UTF-8 or UTF-16."""
    data = text.encode() if isinstance(text, str) else text
    hay = data.lower() + data.replace(b"\0", b"").lower()
    return [canary for canary in (*CANARIES, *uids) if canary.lower().encode() in hay]


def unpacked(path: Path) -> bytes:
    """A file's bytes, with what it holds packed unpacked beside it."""
    data = path.read_bytes()
    start = data.find(b"\n\n") + 2
    if path.suffix == ".nrrd" and data[start : start + 2] == b"\x1f\x8b":
        import gzip

        data += gzip.decompress(data[start:])
    return data


def leaks(folder: Path, uids: list[str]) -> dict[str, list[str]]:
    """File below ``folder`` -> canaries in its name or content."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    seen = {path.name: found_in(unpacked(path), uids) + found_in(path.name, uids) for path in files}
    assert files
    return {name: words for name, words in seen.items() if words}


def test_the_search_finds_what_is_planted(study, uids):
    """Guards the tests below against passing because they look for the wrong things."""
    data = (study / "0001.dcm").read_bytes()
    assert set(found_in(data, uids)) >= {"KANARI", "Hulda", "PID-8812", "19010203", *uids}
    for word, value in PLANTED.items():
        assert found_in(value, []), word
    assert found_in("kanarienvogel".encode("utf-16"), [])


def test_a_hemorrhage_result_names_nobody(study, uids, model, tmp_path):
    """Result folder with report, tables and maps, and what the command prints."""
    done = neuraxis("hemorrhage", study, tmp_path / "out", "--model", model, "--json")
    assert done.returncode == 0, done.stderr
    assert leaks(tmp_path, uids) == {} and found_in(done.stderr, uids) == []
    words = done.stdout.replace(str(tmp_path), "")
    assert found_in(words, uids) == []


def test_what_info_prints_names_nobody(study, uids):
    for arguments in (("info", study), ("info", study / "0001.dcm")):
        done = neuraxis(*arguments)
        assert done.returncode == 0 and found_in(done.stdout.replace(str(study), ""), uids) == []


def test_what_reading_returns_names_nobody(study, uids):
    facts = repr(read_series(study).meta) + repr([entry.choice() for entry in list_series(study)])
    assert found_in(facts, uids) == []


@pytest.mark.parametrize("fault", ["cut", "gap", "orientation", "two", "header"])
def test_refusals_name_nobody(fault, study, uids, tmp_path):
    """Errors name a file of the series, never the folder, which may bear the patient's name."""
    import shutil

    folder = tmp_path / "KANARIENVOGEL_Hulda"
    shutil.copytree(study, folder)
    third = folder / "0003.dcm"
    if fault == "cut":
        third.write_bytes(third.read_bytes()[:-900])
    elif fault == "gap":
        third.unlink()
    elif fault == "orientation":
        build.change(folder, ImageOrientationPatient=None)
    elif fault == "header":
        third.write_bytes(third.read_bytes()[:600])
    else:
        build.save(build.series(build.SPARSE_MM, matrix=64, pixel_mm=3.4), folder)
    with pytest.raises(NeuraxisError) as error:
        read_volume(folder)
    assert found_in(str(error.value), uids) == []
    done = neuraxis_process("hemorrhage", folder, tmp_path / "out", "--model", "none.safetensors")
    assert done.returncode and found_in(done.stderr, uids) == []


def test_the_worker_writes_no_name(study, uids, client, model, tmp_path):
    """The log for bug reports, and what lies in the exchange folder while a run is under way."""
    job = client.job("hemorrhage", {"ct": read_series(study)}, str(model), output=tmp_path / "out")
    assert leaks(Path(client._exchange), uids) == {}
    client.wait(client.run(job), timeout=120)
    assert found_in(client.log_text, uids) == []
    assert leaks(tmp_path, uids) == {}


def test_an_unforeseen_fault_names_nobody(study, uids, client, model, tmp_path):
    """The sentence and the log of a failing run; its paths lead through a folder with the patient's name."""
    from NeuraxisLib.worker_job import Job

    broken = tmp_path / "bad.safetensors"
    broken.write_bytes(Path(model).read_bytes()[:-10])
    for chosen in (str(model), str(broken)):
        job = Job("hemorrhage", {"ct": study}, chosen, {"threshold": "many"}, output=tmp_path / "out")
        with pytest.raises(NeuraxisError) as error:
            client.wait(client.run(job), timeout=120)
        assert found_in(str(error.value), uids) == [] and found_in(client.log_text, uids) == []


def test_times_and_dates_of_the_examination_are_not_kept(study, tmp_path, model):
    """Provenance says when it was computed, not when the patient was examined."""
    assert neuraxis("hemorrhage", study, tmp_path / "out", "--model", model).returncode == 0
    text = (tmp_path / "out" / "result.json").read_text() + (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"2019[-./]?03[-./]?17", text)


def test_html_in_a_name_never_reaches_the_report(study, model, tmp_path):
    images = build.series(build.SPARSE_MM, matrix=64, pixel_mm=3.4)
    for image in images:
        image.SeriesDescription = image.PatientName = "<script>alert('x')</script>"
        image.ConvolutionKernel = "<b>H31s"
    folder = build.save(images, tmp_path / "series")
    assert neuraxis("hemorrhage", folder, tmp_path / "out", "--model", model).returncode == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "alert(" not in page and "<b>H31s" not in page


# -- stroke and discs ---------------------------------------------------------------------------------------------


def test_an_acquisition_names_nobody(uids, tmp_path):
    """Frames of a perfusion series: all that the reader keeps of them and says about them."""
    import ctp_dicom

    from StrokeCTPLib.frames import read_frames

    folder = ctp_dicom.one_series(tmp_path / "KANARIENVOGEL_Hulda")
    names = {word: value for word, value in PLANTED.items() if word != "StudyDate"}
    build.change(folder, **names)
    read = read_frames(folder)
    assert found_in(repr(read).replace(str(folder), ""), uids) == []


def test_disc_labels_name_nobody(uids, tmp_path):
    """The three exports of a disc result; the source's own facts are all that could carry a name."""
    from NeuraxisLib.result import Landmark, Result
    from NeuraxisLib.result_folder import write_result
    from NeuraxisLib.volume import Volume

    meta = {"description": "Hulda KANARIENVOGEL", "modality": "MR", "format": "DICOM", "warnings": []}
    source = Volume(np.zeros((5, 40, 40), np.int16), np.diag([1.0, 1.0, 12.0, 1.0]), "", meta=meta)
    points = [Landmark("L4/L5", (8.0, 20.0, 20.0), 0.9), Landmark("L5/S1", (8.0, 20.0, 5.0), 0.8)]
    write_result(Result("discs", source, points=points, provenance={"model": "m"}), tmp_path / "out", report=False)
    for name in ("labels.nii.gz", "labels.csv", "labels.mrk.json"):
        done = neuraxis("labels", tmp_path / "out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert leaks(tmp_path, uids) == {}


@pytest.mark.skipif(os.name != "posix", reason="reads the process table")
def test_the_process_table_names_no_scan(study, client, model):
    """Other accounts may read the arguments of a process: those of the worker hold no path of a scan."""
    client.start()
    command = Path(f"/proc/{client._process._popen.pid}/cmdline").read_bytes()
    assert found_in(command, []) == [] and str(study).encode() not in command
