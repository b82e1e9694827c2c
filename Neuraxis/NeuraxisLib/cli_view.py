"""``neuraxis view``: a scan or a result in the browser, on a computer without a desktop."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from NeuraxisLib import RESEARCH_USE_NOTICE
from NeuraxisLib.cli_process import faults_reported, prepare_process
from NeuraxisLib.errors import DependencyError, InputError

#: Packages of the ``view`` extra that are looked for before anything is started.
_NEEDED = ("trame_slicer", "slicer", "slicer_layer_dm")
_INSTALL = "The page needs packages that are not installed; run: pip install 'neuraxis[view]'."
#: Ways in which VTK can draw without a window, best first (EGL finds a graphics card); empty is its own choice.
_RENDERERS = ("vtkEGLRenderWindow", "vtkOSOpenGLRenderWindow", "") if sys.platform.startswith("linux") else ("",)
_RENDERER_SETTING = "VTK_DEFAULT_OPENGL_WINDOW"
_PROBE = (
    "import vtkmodules.vtkRenderingOpenGL2; from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow;"
    "w = vtkRenderWindow(); w.SetOffScreenRendering(1); w.SetSize(8, 8); w.AddRenderer(vtkRenderer()); w.Render()"
)
_OPEN_TO_OTHERS = (
    "Careful: with --host {host} every computer that reaches this one can ask for the page. The address below is the "
    "only lock, and nothing is encrypted. An ssh tunnel to a page without --host is safer."
)


def view_case(
    path: Annotated[
        Path,
        typer.Argument(
            help="Result folder, image file, DICOM folder, or a folder of such.",
            metavar="RESULT_OR_SCAN",
            show_default=False,
        ),
    ],
    image: Annotated[
        Path | None, typer.Option("--image", help="The image of a result; looked for beside it if not given.")
    ] = None,
    task: Annotated[str, typer.Option("--task", help="What a scan is for; found out if not given.")] = "",
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder from which others may be opened; the one around if not given.")
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Port to listen on; a free one if not given.", max=65535)] = 0,
    host: Annotated[
        str | None, typer.Option("--host", help="Listen to other computers too, at this address of this one.")
    ] = None,
    until_closed: Annotated[bool, typer.Option("--until-closed", help="End when the page is closed.")] = False,
    device: Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, mps, openvino.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", help="Threads to compute with.", min=1)] = None,
) -> None:
    """Show a scan or a result in the browser: slices, 3D, numbers, and a button that runs a task."""
    with faults_reported():
        prepare_process(None, hide_gpu=False)
        _check_packages()
        path = path.absolute()
        if not path.exists():
            raise InputError(f"'{path.name}' was not found; check the name and the folder.")
        os.environ.update(_renderer())
        from NeuraxisLib.view.serving import LOOPBACK, Request, serve

        if host is not None:
            print(_OPEN_TO_OTHERS.format(host=host), file=sys.stderr)
        chosen = Request(
            path=path, image=image, task=task, root=root or path.parent, host=host or LOOPBACK, port=port,
            until_closed=until_closed, device=device, threads=threads,
        )  # fmt: skip
        serve(chosen, _say)


def _say(address: str) -> None:
    where = urlsplit(address)
    print(f"Open in a browser: {address}")
    if where.hostname == "127.0.0.1":
        tunnel = f"{where.port}:127.0.0.1:{where.port}"
        print(f"From another computer, first: ssh -L {tunnel} THIS_COMPUTER; then open the same address there.")
    print(f"Ctrl-C ends it. {RESEARCH_USE_NOTICE}", flush=True)


def _check_packages() -> None:
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise DependencyError(_INSTALL)


def _renderer() -> dict[str, str]:
    """The environment in which VTK draws without a window. It is tried elsewhere, as a process in which it cannot dies.

    Raises:
        DependencyError: VTK cannot draw here at all.
    """
    given = os.environ.get(_RENDERER_SETTING)
    for name in (given,) if given else _RENDERERS:
        chosen = {_RENDERER_SETTING: name} if name else {}
        probe = [sys.executable, "-c", _PROBE]
        if subprocess.run(probe, env={**os.environ, **chosen}, capture_output=True, check=False).returncode == 0:
            return chosen
    raise DependencyError(
        "VTK finds nothing to draw with on this computer; install a graphics driver with EGL, or libosmesa6."
    )
