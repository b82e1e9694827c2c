"""What a computer has for computing, and why a run will use what: facts from the worker's Python, sentences for people.

``python -m NeuraxisLib.machine`` prints the facts as one line of JSON. It imports torch, so it runs in a process of its
own, with the interpreter and the environment of the worker.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from NeuraxisLib.errors import WorkerError
from NeuraxisLib.panel import gigabytes
from NeuraxisLib.process import default_threads, memory_use, usable_cores
from NeuraxisLib.task import Progress
from NeuraxisLib.worker_process import child_environment

#: What a worker needs beside torch.
PACKAGES = ("numpy", "scipy", "SimpleITK", "safetensors", "jinja2")
#: Seconds after which an interpreter that is asked counts as one that does not answer; the first torch import is slow.
PATIENCE_S = 120.0
_NVIDIA = "nvidia-smi"
_IN_SLICER = "with the PyTorch extension in Slicer, or from pytorch.org for another Python"


# -- facts --------------------------------------------------------------------------------------------------------


def find_facts() -> dict[str, Any]:
    """The facts on this interpreter and the computer, as plain values."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "translated": _is_translated(),
        "cores": usable_cores(),
        "threads": default_threads(),
        "memory_bytes": memory_use().total,
        "torch": torch_facts(),
        "nvidia": nvidia_gpus(),
        "missing": [name for name in PACKAGES if _spec(name) is None],
    }


def torch_facts() -> dict[str, Any]:
    """State of torch: "missing", "partial" (a folder without the package), "broken" (with its words) or "ready"."""
    spec = _spec("torch")
    if spec is None or spec.origin is None:
        return {"state": "missing" if spec is None else "partial"}
    try:
        torch = importlib.import_module("torch")
        mps = getattr(torch.backends, "mps", None)
        facts = {
            "state": "ready",
            "version": str(torch.__version__),
            "cuda_build": torch.version.cuda or "",
            "cuda": _cuda_gpus(torch),
            "mps_build": bool(mps is not None and mps.is_built()),
            "mps": bool(mps is not None and mps.is_available()),
        }
    except Exception as error:
        return {"state": "broken", "words": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
    try:
        importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        facts["unrecorded"] = True
    return facts


def _spec(name: str) -> Any:
    """Where a package would be imported from; None if it is not there."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _cuda_gpus(torch: Any) -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory_bytes": int(gpu.total_memory)} for gpu in found]


def nvidia_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver's own tool reports, whatever torch can use."""
    tool = shutil.which(_NVIDIA)
    if tool is None:
        return []
    command, flags = [tool, "--query-gpu=name", "--format=csv,noheader"], _no_window()
    try:
        done = subprocess.run(command, **{"capture_output": True, "text": True, "timeout": 20, **flags})
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _is_translated() -> bool:
    """Whether an Intel build of Python runs on Apple silicon."""
    if sys.platform != "darwin" or platform.machine() == "arm64":
        return False
    try:
        asked = ["sysctl", "-n", "sysctl.proc_translated"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.strip() == "1"
    except (OSError, subprocess.TimeoutExpired):
        return False


# -- asking another interpreter -----------------------------------------------------------------------------------


def ask(python: str, environment: Mapping[str, str] | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """The facts as another interpreter finds them; WorkerError if it does not start or answer.

    Args:
        python: interpreter or launcher.
        environment: base environment; None for this process's.
        progress: asked whether to go on while waiting.
    """
    progress = progress or Progress()
    progress(0.0, "Looking at this computer")
    command = [python, "-m", "NeuraxisLib.machine"]
    own = child_environment([], environment, default_threads(), hide_gpu=False)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        process = subprocess.Popen(command, env=own, **pipes, **_no_window())
    except OSError as error:
        reason = (error.strerror or "unknown fault").lower()
        raise WorkerError(
            f"The Python '{python}' does not start ({reason}); choose another or leave the line empty."
        ) from None
    try:
        output, words = _wait(process, progress)
    finally:
        process.kill()
        process.wait()
    try:
        return json.loads(output.decode(errors="replace").splitlines()[-1])
    except (ValueError, IndexError):
        last = (words.decode(errors="replace").strip().splitlines() or ["without a word"])[-1][:160]
        raise WorkerError(
            f"The Python '{python}' does not answer ({last}); choose another or leave the line empty."
        ) from None


def _wait(process: subprocess.Popen, progress: Progress) -> tuple[bytes, bytes]:
    for _ in range(int(PATIENCE_S / 0.2)):
        try:
            return process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            progress(0.5, "Looking at this computer")
    return b"", b"no answer in time"


def _no_window() -> dict[str, Any]:
    return {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}


# -- sentences ----------------------------------------------------------------------------------------------------


def sentences(facts: Mapping[str, Any]) -> list[str]:
    """What was found and what follows from it, one plain sentence each."""
    memory = f", {gigabytes(facts['memory_bytes'])} of memory" if facts["memory_bytes"] else ""
    system = {"Darwin": "macOS"}.get(facts["system"], facts["system"])
    cores = f"{facts['cores']} processor {'core' if facts['cores'] == 1 else 'cores'}"
    lines = [f"Python {facts['python']} on {system} ({facts['machine']}), {cores}{memory}."]
    lines.append(f"Automatic threads: {facts['threads']}{_why_threads(facts)}.")
    lines += [*_torch_sentences(facts["torch"], facts["nvidia"])]
    if facts["translated"]:
        lines.append("This Python is an Intel build on Apple silicon; a native one computes several times faster.")
    if facts["missing"]:
        lines.append(f"Missing packages: {', '.join(facts['missing'])}; a module's panel offers to install them.")
    return lines


def _why_threads(facts: Mapping[str, Any]) -> str:
    return ", so that one core stays free for you" if facts["threads"] < facts["cores"] else ""


def _torch_sentences(torch: Mapping[str, Any], nvidia: list[str]) -> list[str]:
    state = torch["state"]
    if state == "missing":
        return [f"PyTorch is not installed; install it {_IN_SLICER}."]
    if state == "partial":
        return [f"PyTorch is half installed (its folder is there, the package is not); install it again {_IN_SLICER}."]
    if state == "broken":
        return [f"PyTorch is installed but cannot be loaded ({torch['words']}); install it again {_IN_SLICER}."]
    name = f"PyTorch {torch['version']}"
    lines = [f"{name}: {_device_sentence(torch, nvidia)}"]
    if torch.get("unrecorded"):
        lines.append("PyTorch has no package record, as after an installation that was interrupted; install it again.")
    return lines


def _device_sentence(torch: Mapping[str, Any], nvidia: list[str]) -> str:
    if torch["cuda"]:
        gpu = torch["cuda"][0]
        facts = f"{gpu['name']}, {gigabytes(gpu['memory_bytes'])}, CUDA {torch['cuda_build']}"
        return f"automatic takes the NVIDIA GPU ({facts})."
    if torch["mps"]:
        return "automatic takes the Apple GPU."
    if nvidia and not torch["cuda_build"]:
        return (
            f"this is a CPU build on a computer with an NVIDIA GPU ({nvidia[0]}); reinstall PyTorch {_IN_SLICER} to "
            "use the GPU. Until then the processor computes."
        )
    if nvidia:
        return (
            f"it is built for CUDA {torch['cuda_build']} but cannot use the NVIDIA GPU ({nvidia[0]}); update the GPU's "
            "driver or install a build of PyTorch that fits it. Until then the processor computes."
        )
    why = "no NVIDIA GPU was found" if torch["cuda_build"] else "it is a CPU build and no NVIDIA GPU was found"
    return f"the processor computes, because {why}."


if __name__ == "__main__":
    print(json.dumps(find_facts()))
