"""A served page and a browser for the tests of ``neuraxis view``: what they need, and how to look at it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from project_tree import ROOT, module_names

SIZE = (1280, 720)
#: How long anything may take on a busy machine before a test gives up.
PATIENCE_S = 600


def view_python() -> str:
    """The interpreter whose environment has the ``view`` extra: NEURAXIS_VIEW_PYTHON, ``make test``'s, or this one."""
    beside = Path(sys.prefix) / "view" / "bin" / "python"
    return os.environ.get("NEURAXIS_VIEW_PYTHON") or (str(beside) if beside.is_file() else sys.executable)


def why_no_page() -> str:
    """One sentence on what is missing for a page and a browser; empty if nothing is."""
    code = "import trame_slicer.core"
    if subprocess.run([view_python(), "-c", code], capture_output=True, check=False).returncode:
        return "the view extra is not installed; 'make .venv/view/.ready' makes its environment"
    if not all(map(shutil.which, ("chromium", "chromedriver"))):
        return "Chromium is not installed; on Debian: apt-get install chromium chromium-driver"
    return ""


class ServedPage:
    """``neuraxis view`` as a process of its own.

    Args:
        arguments: of the command.
        home: a folder for its temporary files and the models of its user.
    """

    def __init__(self, *arguments: Any, home: Path):
        self.temporary = Path(tempfile.mkdtemp(dir=home))
        rooms = [str(ROOT), *(str(ROOT / room) for room in module_names())]
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join(rooms), "TMPDIR": str(self.temporary),
            "XDG_DATA_HOME": str(home), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self._errors = tempfile.NamedTemporaryFile("w+", dir=home, encoding="utf-8")  # noqa: SIM115 (closed by end)
        command = [view_python(), "-m", "NeuraxisLib.cli", "view", *map(str, arguments), "--threads", "1"]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        first = self.process.stdout.readline()
        self.address = first.split()[-1] if first else ""

    @property
    def said(self) -> str:
        """What it wrote to stderr so far."""
        self._errors.flush()
        return Path(self._errors.name).read_text(encoding="utf-8")

    def wait(self) -> int:
        """The exit status, once it has ended by itself."""
        return self.process.wait(PATIENCE_S)

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def end(self) -> None:
        """Make sure that nothing is left running."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self._errors.close()


class Browser:
    """Headless Chromium on a page."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
            options.add_argument(f"--{argument}")
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(PATIENCE_S)
        metrics = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, address: str) -> None:
        """Load a page and wait until its views have pictures."""
        self.driver.get(address)
        drawn = "return document.querySelectorAll('.layout-grid-item').length === 4"
        until(lambda: self.run(drawn), "the page has not loaded")
        until(lambda: bright(self.view(0)) > 500, "the axial view stays dark")

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def state(self, name: str) -> Any:
        """A variable of the page."""
        return self.run("return window.trame.state.get(arguments[0])", name)

    def set_state(self, name: str, value: Any) -> None:
        """Change a variable as its widget would."""
        self.run("window.trame.state.set(arguments[0], arguments[1])", name, value)

    def click(self, selector: str, number: int = 0) -> None:
        """Click what a CSS selector finds."""
        from selenium.webdriver.common.by import By

        until(lambda: len(self.driver.find_elements(By.CSS_SELECTOR, selector)) > number, f"there is no {selector}")
        self.driver.find_elements(By.CSS_SELECTOR, selector)[number].click()

    def text(self, selector: str) -> str:
        """Text of all that a CSS selector finds."""
        from selenium.webdriver.common.by import By

        return "\n".join(element.text for element in self.driver.find_elements(By.CSS_SELECTOR, selector))

    def view(self, number: int) -> np.ndarray:
        """Pixels (rows, columns, 3) of the middle of a view: 0 axial, 1 3D, 2 coronal, 3 sagittal."""
        from PIL import Image

        place = self._place(number)
        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        top, left = round(place["y"]), round(place["x"])
        # without what is written at the edges
        return pixels[top + 36 : top + round(place["height"]) - 56, left + 30 : left + round(place["width"]) - 60]

    def scroll(self, number: int, steps: int) -> None:
        """Turn the mouse wheel over a view."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        place = self._place(number)
        middle = (round(place["x"] + place["width"] / 2), round(place["y"] + place["height"] / 2))
        ActionChains(self.driver).move_by_offset(0, 0).scroll_from_origin(
            ScrollOrigin.from_viewport(*middle), 0, 120 * steps
        ).perform()

    def click_slider(self, number: int, share: float) -> None:
        """Click the slider of the n-th slice view at a share of its length."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By

        track = self.driver.find_elements(By.CSS_SELECTOR, ".nx-slider .v-slider__container")[number]
        across = round((share - 0.5) * track.size["width"])
        ActionChains(self.driver).move_to_element_with_offset(track, across, 0).click().perform()

    def quit(self) -> None:
        """Close it."""
        self.driver.quit()

    def _place(self, number: int) -> dict[str, float]:
        return self.run(
            "return document.querySelectorAll('.layout-grid-item')[arguments[0]].getBoundingClientRect().toJSON()",
            number,
        )


def until(holds: Callable[[], Any], otherwise: str) -> Any:
    """Wait until something holds; what it returned."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        result = holds()
        if result:
            return result
        time.sleep(0.2)
    raise AssertionError(otherwise)


def bright(pixels: np.ndarray) -> int:
    """Number of pixels that are not near black."""
    return int(np.count_nonzero(pixels.max(axis=2) > 60))


def red(pixels: np.ndarray) -> int:
    """Number of pixels that are clearly coloured toward red; grey scans have none."""
    values = pixels.astype(int)
    return int(np.count_nonzero(values[..., 0] > values[..., 2] + 25))
