"""Headers walked for speed say what pydicom says, whole or damaged; what is odd is left to pydicom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from NeuraxisLib import dicom_headers
from NeuraxisLib.dicom import read_series
from NeuraxisLib.dicom_elements import converter, read_elements
from NeuraxisLib.dicom_headers import scan_folder
from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.task import Progress
from Testing import dicom_series as build

#: Kept as text, beside what every header has.
FACTS = ("AcquisitionTime", "KVP", "EchoTime", "StackID", "ImageType", "PatientComments")


def rich_image(syntax: str = ExplicitVRLittleEndian, undefined: bool = False) -> Dataset:
    """An image with all that a header can say, sequences and private elements; the lengths of sequences on request."""
    image = build.series([0.0], matrix=8)[0]
    image.SpecificCharacterSet, image.PatientComments = ["", "ISO 2022 IR 87"], "plain"
    image.ConvolutionKernel, image.SeriesDescription = ["H31s", "3"], "Schädel"
    image.GantryDetectorTilt, image.ImagerPixelSpacing = "-12.5", ["1.7", "1.7"]
    image.ContrastBolusAgent, image.LossyImageCompression = "Iopromide", "00"
    image.AcquisitionTime, image.KVP, image.EchoTime = "101500.25", "120", ""
    image.add_new("PixelPaddingValue", "SS", -2000)
    deep, item, other = Dataset(), Dataset(), Dataset()
    deep.CodeMeaning, other.PatientID = "deep", "another"
    item.CodeValue, item.ConceptNameCodeSequence = "1", Sequence([Dataset(), deep])
    image.ReferencedImageSequence, image.SourceImageSequence = Sequence([item, Dataset()]), Sequence([])
    image.private_block(0x0009, "MAKER", create=True).add_new(0x10, "OB", b"\1" * 20_000)
    image.private_block(0x0009, "MAKER").add_new(0x11, "SQ", Sequence([other]))
    for element in image.iterall():
        if element.VR == "SQ" and undefined:
            element.is_undefined_length = True
            for one in element.value:
                one.is_undefined_length_sequence_item = True
    if syntax == RLELossless:
        image.compress(syntax, generate_instance_uid=False)
    image.file_meta.TransferSyntaxUID = UID(syntax)
    return image


def save(image: Dataset, path: Path) -> Path:
    """Write the image in the syntax that it says."""
    image.save_as(path, enforce_file_format=True)
    return path


def walked(path: Path) -> bool:
    """Whether pydicom need not parse the file."""
    return read_elements(path, converter()) is not None


def found(path: Path) -> tuple[list, list[dict], Counter, list[Path]] | str:
    """What a scan keeps of the only file of a folder, or the sentence of its refusal."""
    try:
        scan = scan_folder(path.parent, Progress(), FACTS)
    except InputError as error:
        return str(error)
    headers = scan.headers
    return [(repr(one), one.patient) for one in headers], [one.facts for one in headers], scan.skipped, scan.damaged


@pytest.fixture
def by_pydicom(monkeypatch) -> Callable[[Path], object]:
    """``found`` without the walk."""

    def parse(path: Path) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(dicom_headers, "read_elements", lambda path, convert: None)
            return found(path)

    return parse


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_a_walked_header_says_what_pydicom_says(syntax, undefined, by_pydicom, tmp_path):
    path = save(rich_image(syntax, undefined), tmp_path / "a.dcm")
    assert walked(path)
    headers, facts, *_ = found(path)
    assert (headers, facts) == by_pydicom(path)[:2]
    assert facts == [{"AcquisitionTime": "101500.25", "KVP": "120", "ImageType": facts[0]["ImageType"],
                      "PatientComments": "plain"}]  # fmt: skip
    header = dicom_headers.read_headers(path)[0]
    assert (header.padding, header.tilt_deg, header.contrast, header.kernel) == (-2000, -12.5, True, "H31s/3")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_damaged_headers_say_what_pydicom_says(syntax, by_pydicom, tmp_path):
    image = rich_image(syntax, undefined=True)
    del image[0x0009, 0x1010]  # most damage shall hit what is read
    data, rng = save(image, tmp_path / "a.dcm").read_bytes(), np.random.default_rng(0)
    end = data.index(b"\xe0\x7f\x10\x00") + 12
    ways = Counter()
    for _ in range(250):
        damaged = bytearray(data)
        for at in rng.integers(128, end, rng.integers(1, 3)):
            damaged[at] = rng.integers(256) if rng.random() < 0.5 else damaged[at] ^ 1 << rng.integers(8)
        (tmp_path / "a.dcm").write_bytes(damaged)
        answer = found(tmp_path / "a.dcm")
        assert answer == by_pydicom(tmp_path / "a.dcm")
        ways[walked(tmp_path / "a.dcm")] += 1
    assert ways[True] > 60 and ways[False] > 10


def test_odd_headers_are_left_to_pydicom(tmp_path):
    build.enhanced(tmp_path / "enhanced", [0.0, 5.0])
    assert not walked(tmp_path / "enhanced" / "0001.dcm")
    for syntax in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        build.in_syntax(tmp_path / syntax, syntax)
        assert not walked(tmp_path / syntax / "0000.dcm")
    whole = save(rich_image(), tmp_path / "whole.dcm").read_bytes()
    odd = {
        "bare": whole[128 + 4 :],
        "private syntax": whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0"),
        "implicit after all": whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"),
        "cut off": whole[:1000],
        "unknown representation": whole.replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00ZZ"),
        "text as character set": whole.replace(b"\x08\x00\x05\x00CS", b"\x08\x00\x05\x00LO"),
    }
    for name, data in odd.items():
        (tmp_path / "odd.dcm").write_bytes(data)
        assert data != whole and not walked(tmp_path / "odd.dcm"), name


def test_values_are_remembered_for_one_scan_only(tmp_path):
    path, convert = save(rich_image(), tmp_path / "a.dcm"), converter()
    for _ in range(2):
        assert read_elements(path, convert).get("PatientID") == build.CANARY + "ID"
    assert convert.cache_info().hits and converter().cache_info().currsize == 0


@pytest.mark.parametrize(
    ("word", "value", "error", "words"),
    [
        ("RescaleIntercept", b"1e400 ", InputError, "claims an intercept of inf"),
        ("RescaleIntercept", b"nan ", InputError, "claims an intercept of nan"),
        ("ImagePositionPatient", b"inf\\inf\\inf ", GeometryError, "has no position"),
        ("ImagePositionPatient", b"nan\\nan\\nan ", GeometryError, "has no position"),
    ],
)
def test_numbers_that_are_none_are_named(word, value, error, words, tmp_path):
    folder = build.save(build.series(build.SPARSE_MM, matrix=8), tmp_path / "series")
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        image[word] = pydicom.dataelem.RawDataElement(image[word].tag, "DS", len(value), value, 0, False, True)
        image.save_as(path)
    with pytest.raises(error, match=words) as caught:
        read_series(folder)
    build.one_sentence(caught)
