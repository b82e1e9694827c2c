"""Bundled scans in Slicer's Sample Data module: they load without a network."""

from __future__ import annotations

from pathlib import Path

from NeuraxisLib.task import get_task

CATEGORY = "Neuraxis"


def register_sample(
    task: str, file_name: str, sample_name: str, module_file: str, file_type: str = "VolumeFile"
) -> None:
    """Offer a scan that comes with a task; one that is not there (a trimmed installation) is not offered.

    Args:
        task: name of the task whose resources hold the scan.
        file_name: of the scan in its folder ``SampleData``.
        sample_name: what the user sees, and the name of the node.
        module_file: of the module that offers it; its picture of the sample lies beside its icon.
        file_type: as Slicer's readers call it, such as "SequenceFile".
    """
    import SampleData

    module, file = Path(module_file), get_task(task).resources / "SampleData" / file_name
    if file.is_file():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=sample_name,
            thumbnailFileName=str(module.parent / "Resources" / "Icons" / f"{sample_name}.png"),
            uris=file.as_uri(),
            fileNames=file.name,
            nodeNames=sample_name,
            loadFileTypes=file_type,
        )
