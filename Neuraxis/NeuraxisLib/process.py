"""What the command line and the worker do to their own process: memory, threads, faults turned into sentences."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from dataclasses import dataclass

from NeuraxisLib.errors import DependencyError, NeuraxisError, SeriesChoiceError, WorkerError
from NeuraxisLib.faults import words_of

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_KEPT_BYTES = 1 << 30
#: Set by :func:`limit_memory`.
_limit_gb: float | None = None
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
)  # fmt: skip


def keep_freed_memory() -> bool:
    """Let glibc keep what torch frees instead of returning it to the system after every layer.

    Stock Linux builds of torch lose a third or more of a CPU run to page faults on memory that they had a moment
    before. The results stay bit for bit the same. True if the setting was made; other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl has a mallopt of no effect; only glibc has this
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_TOP_PAD, 64 << 20))
    return all([mallopt(name, value) == 1 for name, value in settings])


def return_freed_memory() -> None:
    """Give memory that is free again back to the system, as a warm worker should while it waits (glibc only)."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(ctypes.c_size_t(0))


def limit_memory(gigabytes: float) -> bool:
    """Let this process take at most so many GB (1e9 bytes) of memory of its own; True if the system keeps to it.

    Linux alone does: the limit is on data pages (RLIMIT_DATA), as one on addresses would stop CUDA, which reserves far
    more of them than it uses. What goes beyond is refused, and :func:`as_user_error` says so in a sentence.
    """
    global _limit_gb
    if not sys.platform.startswith("linux"):
        return False
    import resource

    try:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        wanted = int(gigabytes * 1e9)
        resource.setrlimit(
            resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
    except (OSError, ValueError):
        return False
    _limit_gb = gigabytes
    return True


def keep_no_core() -> None:
    """Let no crash leave this process's memory, with the image in it, on the disk, where the system can see to it."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    except (ImportError, OSError, ValueError):  # Windows, which keeps a dump only if it was told to
        pass


def usable_cores() -> int:
    """Cores that this process may use (the affinity mask counts, as in containers and batch systems)."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


def default_threads() -> int:
    """Threads for computing: one core stays free for the person at the machine where there are more than two."""
    cores = usable_cores()
    return cores - 1 if cores > 2 else cores


def thread_environment(threads: int | None) -> dict[str, str]:
    """Environment variables for the threads of torch, BLAS and ITK; to be set before they load.

    Threads that wait shall sleep, not spin: on a machine that others use too (Slicer draws on it), spinning made two
    threads more than fifty times slower than one. None leaves the number of threads to the libraries.
    """
    count = {} if threads is None else dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return {"OMP_WAIT_POLICY": "passive", **count}


@dataclass(frozen=True)
class MemoryUse:
    """Memory in bytes: of this process, still available, and in the machine; None where the system does not say."""

    used: int | None = None
    available: int | None = None
    total: int | None = None

    def in_words(self) -> str:
        """Such as ``"it used 3.12 GB, 0.2 of 16.0 GB were free"``; empty when nothing is known."""
        used = f"it used {self.used / 1e9:.2f} GB" if self.used else ""
        free = f"{self.available / 1e9:.1f} of {self.total / 1e9:.1f} GB were free" if self.total else ""
        return ", ".join(words for words in (used, free) if words)


def memory_use() -> MemoryUse:
    """Memory of this process and of the machine, from /proc on Linux and from psutil elsewhere, if it is there."""
    try:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        with open("/proc/meminfo") as file:
            kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in file}
        return MemoryUse(used, kilobytes["MemAvailable"] * 1024, kilobytes["MemTotal"] * 1024)
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        import psutil
    except ImportError:
        return MemoryUse()
    machine = psutil.virtual_memory()
    return MemoryUse(psutil.Process().memory_info().rss, machine.available, machine.total)


def is_alive(process: int) -> bool:
    """Whether a process of that number runs on this computer."""
    if os.name != "posix":  # there os.kill would end the process; to take it for living does no harm
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def as_user_error(error: BaseException) -> NeuraxisError:
    """The error that a user sees for any exception: itself if it is ours, else one sentence for its kind."""
    if isinstance(error, NeuraxisError):
        return error
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return WorkerError(_out_of_memory_sentence(error))
    if is_card_lost(error):
        return WorkerError(
            f"The graphics card failed during the run ({str(error).splitlines()[0][:100]}); run again, on the CPU if "
            "it happens once more."
        )
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        return DependencyError(_missing_package_sentence(package, error))
    return NeuraxisError(
        f"An unexpected fault stopped the run ({type(error).__name__}: {words_of(error) or 'no further words'}); "
        "please report it with the log."
    )


def is_card_lost(error: BaseException) -> bool:
    """Whether CUDA said that its work failed, or the card is gone: no run of this process can use it any more."""
    return isinstance(error, RuntimeError) and str(error).startswith("CUDA error")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, as our commands raise it.

    After a plain KeyboardInterrupt has gone through the run of a text (every dataclass and named tuple runs one while
    its module is imported), Python ends by the signal whatever exit status it is given later.
    """


def heed_interruption() -> None:
    """Let Ctrl-C raise :class:`Interrupted`, unless somebody else handles or ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, _interrupt)


def _interrupt(*_: object) -> None:
    raise Interrupted


def error_of_code(code: str, message: str, choices: list[dict] | None = None) -> NeuraxisError:
    """The error that another process described by its stable code (see :mod:`NeuraxisLib.errors`) and sentence."""
    if code == SeriesChoiceError.code:
        return SeriesChoiceError(message, choices or [])
    kinds = [NeuraxisError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        if kind.code == code:
            return kind(message)
    return NeuraxisError(message)


def _is_torch_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    names = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in names or (
        isinstance(error, RuntimeError)
        and any(words in text for words in ("out of memory", "can't allocate memory", "bad_alloc"))
    )


def _out_of_memory_sentence(error: BaseException) -> str:
    if "cuda" in str(error).lower() or "mps" in str(error).lower():
        return "The graphics card ran out of memory; close other programs that use it or choose device 'cpu'."
    if _limit_gb is not None:
        return memory_limit_sentence(_limit_gb)
    numbers = memory_use().in_words()
    numbers = f" ({numbers})" if numbers else ""
    return f"Memory ran out{numbers}; close other programs or use a machine with more memory, then run again."


def memory_limit_sentence(limit_gb: float) -> str:
    """What to say when a process came to the limit that the settings give it."""
    remedy = "raise it in the settings of the Neuraxis module, then run again"
    return f"The memory limit of {limit_gb:g} GB was reached; {remedy}."


def _missing_package_sentence(package: str, error: ImportError) -> str:
    if not package or not isinstance(error, ModuleNotFoundError):
        return f"A Python package cannot be loaded ({' '.join(str(error).split())[:200]}); install it again."
    remedy = "install the PyTorch extension in Slicer, or" if package == "torch" else "install it with"
    return f"The Python package '{package}' is not installed; {remedy} 'pip install {package}', then run again."
