"""Packages called torch that take no time to import and are what installations can be: CPU or CUDA builds, halves."""

from __future__ import annotations

from pathlib import Path

_BUILD = """
__version__ = {version!r}
class version: cuda = {cuda!r}
class cuda:
    is_available = staticmethod(lambda: {available})
    device_count = staticmethod(lambda: 1)
    class _Gpu: name, total_memory = "Test GPU", 24_000_000_000
    get_device_properties = staticmethod(lambda number: cuda._Gpu)
class backends:
    class mps:
        is_built = staticmethod(lambda: {mps})
        is_available = staticmethod(lambda: {mps})
"""


def write_torch(folder: Path, body: str, recorded: str = "2.4.0") -> Path:
    """A package ``torch`` with that code; ``recorded``: version in its package record, empty for no record."""
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text(body)
    if recorded:
        record = folder / f"torch-{recorded}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {recorded}\n")
    return folder


def torch_build(version: str = "2.4.0+cpu", cuda: str | None = None, available: bool = False, mps: bool = False) -> str:
    """Code of a torch built for that CUDA version (None: a CPU build) that can use a GPU or not."""
    return _BUILD.format(version=version, cuda=cuda, available=available, mps=mps)
