"""A Dask cluster out of Slurm jobs, described by a TOML or YAML file.

The file holds what dask-jobqueue's SLURMCluster takes (``queue``, ``account``, ``cores``, ``memory``, ``walltime``,
``job_script_prologue`` ...) and, of ours, ``jobs`` (how many jobs; 1 if not given) and ``gpus`` (graphics cards per
job: asks Slurm for them and offers them to cases). Example::

    queue = "gpu"
    cores = 4
    processes = 1
    memory = "32GB"
    walltime = "02:00:00"
    jobs = 8
    gpus = 1
    job_script_prologue = ["source /shared/neuraxis/bin/activate"]

Whoever reaches a Dask scheduler can make its workers run anything. Ours listens for its jobs on the cluster's network,
so it talks TLS to those alone that hold a certificate made for this batch, which lies, for this account only, in
``shared_temp_directory`` (the folder of the settings if not given) until the batch ends. ``protocol = "tcp://"`` does
without. Its page of statistics is for this computer only, and workers have none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from NeuraxisLib.errors import DependencyError, InputError


def read_settings(file: str | Path) -> dict[str, Any]:
    """The settings of a TOML (``.toml``) or YAML file.

    Raises:
        InputError: not there, not readable, or no table of settings.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
        settings = _toml(text) if path.suffix.lower() == ".toml" else _yaml(text)
    except (OSError, ValueError) as error:
        raise InputError(f"The cluster settings '{path.name}' cannot be read ({error}); correct the file.") from error
    if not isinstance(settings, dict):
        raise InputError(f"The cluster settings '{path.name}' are no table of names and values; correct the file.")
    return settings


def slurm_cluster(file: str | Path) -> Any:
    """A SLURMCluster with its jobs asked for; close it to end them.

    Raises:
        InputError: settings that SLURMCluster does not take.
        DependencyError: dask-jobqueue is not installed.
    """
    settings = read_settings(file)
    jobs, gpus = int(settings.pop("jobs", 1)), int(settings.pop("gpus", 0))
    try:
        import dask_jobqueue
    except ImportError as error:
        raise DependencyError("Slurm jobs need the package 'dask-jobqueue'; install 'neuraxis[cluster]'.") from error
    settings.setdefault("cores", 1)
    settings.setdefault("processes", 1)
    settings["scheduler_options"] = {"dashboard_address": "127.0.0.1:0", **settings.get("scheduler_options", {})}
    settings["worker_extra_args"] = ["--no-dashboard", *settings.get("worker_extra_args", [])]
    if "protocol" not in settings and "security" not in settings:
        settings |= {"security": True, "shared_temp_directory": str(Path(file).absolute().parent)} | settings
    if gpus:
        settings["job_extra_directives"] = [*settings.get("job_extra_directives", []), f"--gres=gpu:{gpus}"]
        settings["worker_extra_args"] = [*settings.get("worker_extra_args", []), "--resources", f"GPU={gpus}"]
    try:
        cluster = dask_jobqueue.SLURMCluster(**settings)
    except ImportError as error:
        raise DependencyError(
            "Safe talk with Slurm jobs needs the package 'cryptography'; install 'neuraxis[cluster]', or put "
            "protocol = \"tcp://\" into the settings to do without."
        ) from error
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"The cluster settings '{Path(file).name}' do not fit ({error}); correct them.") from error
    cluster.scale(jobs=jobs)
    return cluster


def _toml(text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError as error:
            raise InputError("Settings in TOML need Python 3.11 or the package 'tomli'; write YAML.") from error
    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise InputError("Settings in YAML need the package 'pyyaml'; write TOML instead.") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
