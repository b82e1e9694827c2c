"""PyTorch checkpoints of others: the tensors alone, read by torch's restricted reader; no code of the file is run.

Both forms that ``torch.save`` has written are read, the zip archive and the older stream of pickles. A file that asks
for anything but tensors and plain containers is refused.
"""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuraxisLib.errors import DependencyError, ModelError
from NeuraxisLib.models import MAX_FILE_BYTES

if TYPE_CHECKING:
    from torch import Tensor

#: Keys under which training scripts put the state dict beside the optimiser's state, the epoch and so on.
WRAPPERS = ("state_dict", "model_state_dict", "model_weights", "network_weights", "model")
#: What wrappers around the network put before the name of every tensor.
PREFIXES = ("module.", "_orig_mod.")
#: Up to 2.5 the restricted reader could be made to run code (CVE-2025-32434).
SAFE_VERSION = (2, 6)
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]{1,80})")


def read_torch(path: Path) -> dict[str, Tensor]:
    """The state dict of a PyTorch checkpoint: tensor name -> dense tensor on the CPU, in the order of the file.

    It may stand alone or under one of :data:`WRAPPERS`; prefixes of ``DataParallel`` and ``torch.compile`` are taken
    off. Tensors may still be views that are larger than what they store: compare shapes before copying them.

    Raises:
        ModelError: damaged, no state dict in it, or it holds something else than tensors (named), such as code.
        DependencyError: the installed PyTorch is too old to read strangers' files safely.
    """
    import torch

    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < SAFE_VERSION:
        raise DependencyError(
            f"PyTorch {torch.__version__} cannot read a stranger's checkpoint safely; install PyTorch 2.6 or newer."
        )
    _check_archive(path)
    try:
        if has_damaged_member(path):
            raise _damaged(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols and old classes: nothing a reader could do about
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if type(error).__name__ == "UnpicklingError":  # told by its name: nothing here may import a pickle reader
            raise _refused(path, error) from None
        if isinstance(error, (MemoryError, ModelError)) or "not enough memory" in str(error):
            raise
        raise _damaged(path) from None
    return {name: _dense(path, name, tensor) for name, tensor in _state_dict(path, content).items()}


def has_damaged_member(path: Path) -> bool:
    """Whether the check sum of a member of a zip archive is wrong, which torch itself does not look at.

    Members without one (``torch.serialization.set_crc32_options(False)``) are passed over.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":  # an older form, which has no check sums
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            for member in filter(lambda one: one.CRC, archive.infolist()):
                with archive.open(member) as content:
                    while content.read(1 << 20):
                        pass
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError, RuntimeError, zlib.error):
        return True
    return False


def _damaged(path: Path) -> ModelError:
    return ModelError(f"The checkpoint '{path.name}' is damaged or was cut short; obtain it again.")


def _check_archive(path: Path) -> None:
    """ModelError for a zip archive that unpacks to more than any checkpoint, or that is TorchScript."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return  # an older form, or damaged, which torch's own reader finds out
    if sum(member.file_size for member in members) > MAX_FILE_BYTES:
        raise ModelError(f"The checkpoint '{path.name}' unpacks to more than 8 GiB; choose another.")
    if any("/code/" in f"/{member.filename}" for member in members):
        raise ModelError(
            f"'{path.name}' is a TorchScript program, not a checkpoint; save the network's state_dict() instead."
        )


def _refused(path: Path, error: Exception) -> ModelError:
    """What to say of a pickle that torch's restricted reader would not read."""
    found = _FORBIDDEN.search(str(error))
    if not found:
        return ModelError(
            f"The checkpoint '{path.name}' is no pickle of tensors or was damaged; obtain it again, or save the "
            "network's state_dict()."
        )
    return ModelError(
        f"The checkpoint '{path.name}' holds more than tensors: it asks for '{found[1]}', and what it asks for is "
        "never run; obtain the network's state_dict() alone."
    )


def _state_dict(path: Path, content: Any) -> Mapping[str, Any]:
    """The mapping of names to tensors in what was read, without wrappers and prefixes."""
    import torch

    for _ in range(3):  # {"network": {"state_dict": {...}}} is as deep as people go
        if not isinstance(content, Mapping):
            break
        tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
        if tensors and all(isinstance(name, str) for name in tensors):
            return _without_prefixes(tensors)
        content = next((content[key] for key in WRAPPERS if key in content), None)
    raise ModelError(
        f"The checkpoint '{path.name}' holds no state dict, neither alone nor under {', '.join(WRAPPERS)}; save the "
        "network's state_dict()."
    )


def _without_prefixes(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    while prefix := next((one for one in PREFIXES if all(name.startswith(one) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _dense(path: Path, name: str, tensor: Tensor) -> Tensor:
    import torch

    numbers = tensor.dtype.is_floating_point or tensor.dtype in (torch.int64, torch.int32, torch.bool, torch.uint8)
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu" or not numbers:
        raise ModelError(
            f"The tensor '{name[:80]}' of the checkpoint '{path.name}' is sparse, quantised, complex or empty; save "
            "the network in single precision."
        )
    return tensor.detach()
