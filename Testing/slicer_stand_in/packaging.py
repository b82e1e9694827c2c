"""``slicer.packaging`` of Slicer 5.12: records what would be installed and installs nothing."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement

#: What ``pip_ensure`` was asked for since the last reset, as text.
ensured: list[str] = []
#: Whether the user agrees to the next installation.
agrees = True
#: Distribution names that count as missing, whatever this Python has.
absent: set[str] = set()


def reset() -> None:
    """Back to the state before a test."""
    global agrees
    ensured.clear()
    absent.clear()
    agrees = True


def load_requirements(path) -> list[Requirement]:
    """The requirements of a requirements.txt, comments and blank lines left out."""
    lines = (line.partition("#")[0].strip() for line in Path(path).read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def pip_check(req) -> bool:
    """Whether the requirement (or all of a list) is satisfied by what is installed."""
    import importlib.metadata

    requirements = req if isinstance(req, (list, tuple)) else [req]
    for requirement in requirements:
        requirement = requirement if isinstance(requirement, Requirement) else Requirement(requirement)
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
        if requirement.name in absent or not requirement.specifier.contains(version, prereleases=True):
            return False
    return True


def pip_ensure(
    reqs,
    constraints=None,
    skip_packages=None,
    prompt_install=True,
    prompt_restart=True,
    requester=None,
    skip_in_testing=True,
    show_progress=True,
) -> None:
    """Record what is missing; RuntimeError when the user declines."""
    requirements = [r if isinstance(r, Requirement) else Requirement(r) for r in reqs]
    missing = [r for r in requirements if not pip_check(r)]
    if missing and prompt_install and not agrees:
        raise RuntimeError("User declined installation of Python packages")
    ensured.extend(str(r) for r in missing)
    for requirement in missing:
        absent.discard(requirement.name)
