"""What all DICOM files of one export share: who made them, by which algorithm, and whose they are.

Patient and study are those of the source images and are never made up; series and instances are new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from NeuraxisLib import __version__
from NeuraxisLib.errors import DependencyError
from NeuraxisLib.result import Result

MANUFACTURER = "Neuraxis"
#: Ends every series description and algorithm name, where viewers show them.
RESEARCH_USE = "research use only"
#: Coding scheme of what no public scheme has a code for.
OWN_SCHEME = "99NEURAXIS"
LONG_STRING = 64


@dataclass(frozen=True)
class Algorithm:
    """What found what the files hold.

    Attributes:
        name: of the model, or of the rule where no model was used; ends in "research use only".
        version: of Neuraxis, and the start of the model's SHA-256.
        parameters: name -> value, among them the whole SHA-256.
        is_network: whether a model was used.
        is_corrected: whether a person changed what it found.
    """

    name: str
    version: str
    parameters: dict[str, str]
    is_network: bool
    is_corrected: bool = False


def require_highdicom() -> ModuleType:
    """The package highdicom, or DependencyError."""
    try:
        import highdicom
    except ImportError as error:
        raise DependencyError("Writing DICOM needs the Python package highdicom; install it.") from error
    return highdicom


def with_notice(text: str, limit: int = LONG_STRING) -> str:
    """``text, research use only``, shortened to what a DICOM element holds; the notice is never cut."""
    notice = f", {RESEARCH_USE}"
    return text[: limit - len(notice)].rstrip(" ,") + notice


def algorithm_of(result: Result) -> Algorithm:
    """The algorithm that a result's provenance names."""
    model = result.provenance.get("model") or {}
    model = model if isinstance(model, dict) else {"title": model}
    sha256 = str(model.get("sha256") or "")
    version = str(result.provenance.get("neuraxis") or __version__)
    corrected = bool(result.provenance.get("corrected"))
    by_hand = {"corrected": "by hand"} if corrected else {}
    if not model:
        return Algorithm(with_notice(f"{MANUFACTURER} {result.task}, by rules"), version, by_hand, False, corrected)
    parameters = {"model": str(model.get("name") or ""), "sha256": sha256, **by_hand}
    name = with_notice(str(model.get("title") or model.get("name") or result.task))
    short = f"{version}, model {sha256[:12]}" if sha256 else version
    given = {key: text for key, text in parameters.items() if text}
    return Algorithm(name, short[:LONG_STRING], given, True, corrected)


def family_code(algorithm: Algorithm) -> Any:
    """Code of the algorithm's family: artificial intelligence, or thresholds."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    if algorithm.is_network:
        return codes.DCM.ArtificialIntelligence
    return Code("thresholds", OWN_SCHEME, "Thresholds on measured values")


def own_scheme() -> list[Dataset]:
    """The entry of the Coding Scheme Identification Sequence for :data:`OWN_SCHEME`."""
    item = require_highdicom().coding_schemes.CodingSchemeIdentificationItem
    return [item(OWN_SCHEME, name="Codes of Neuraxis", version=__version__, responsible_organization=MANUFACTURER)]


def patient_and_study(first: Dataset) -> dict[str, Any]:
    """Arguments of highdicom's general constructors for the patient and the study of an image."""
    return {
        "study_instance_uid": first.StudyInstanceUID,
        "patient_id": first.PatientID,
        "patient_name": first.PatientName,
        "patient_birth_date": first.PatientBirthDate,
        "patient_sex": first.PatientSex,
        "accession_number": first.AccessionNumber,
        "study_id": first.StudyID,
        "study_date": first.StudyDate,
        "study_time": first.StudyTime,
        "referring_physician_name": first.ReferringPhysicianName,
        "specific_character_set": first.get("SpecificCharacterSet"),
    }


def new_series(number: int) -> dict[str, Any]:
    """Arguments of highdicom's constructors for a new series with one instance."""
    return {
        "series_instance_uid": generate_uid(),
        "series_number": number,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": __version__,
        "device_serial_number": "1",
    }
