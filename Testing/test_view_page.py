"""``neuraxis view`` in a real browser: open, run, look, scroll, close; and who is kept out."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from fault_support import head
from untrained_models import write_untrained_model
from view_support import Browser, ServedPage, red, until, why_no_page

from NeuraxisLib.files import write_volume

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Temporary files, a model that calls all of the head blood, and cases: two scans, a broken one, a file outside."""
    if why_no_page():
        pytest.skip(why_no_page())
    pytest.importorskip("selenium")
    folder = tmp_path_factory.mktemp("home")
    models, cases = folder / "Neuraxis" / "Models", folder / "cases"
    models.mkdir(parents=True)
    cases.mkdir()
    write_untrained_model(models / "all.safetensors", size=32, default=True, threshold=1e-6, name="all")
    write_volume(head(), cases / "head.nrrd")
    write_volume(head(), cases / "other.nii.gz")
    (cases / "broken.nrrd").write_bytes(b"NRRD0004\nnot an image\n")
    write_volume(head(), folder / "outside.nrrd")
    (cases / "link.nrrd").symlink_to(folder / "outside.nrrd")
    return folder


@pytest.fixture(scope="module")
def served(home):
    page = ServedPage(home / "cases" / "head.nrrd", home=home)
    assert page.address, page.said
    yield page
    page.end()


@pytest.fixture(scope="module")
def browser(served):
    browser = Browser()
    browser.open(served.address)
    yield browser
    browser.quit()


def request(address: str, path: str, **headers: str) -> http.client.HTTPResponse:
    """What the server of a page answers to a path."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


SOCKET = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


def test_only_who_knows_the_token_comes_in(served):
    token = urlsplit(served.address).path.strip("/")
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    for path in ("/", "/index.html", "/ws", f"/{wrong}/", f"/{wrong}/ws", "/report", f"/x/{token}/ws", "/%2e%2e/etc"):
        for headers in ({}, SOCKET):
            assert request(served.address, path, **headers).status == 403, path
    assert request(served.address, f"/{token}/ws", **SOCKET).status == 101
    answer = request(served.address, f"/{token}/index.html")
    assert answer.status == 200 and answer.headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert request(served.address, f"/{token}/report").status == 404
    assert len(token) >= 32 and urlsplit(served.address).hostname == "127.0.0.1"


def test_nothing_comes_from_elsewhere(served, browser):
    names = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    mine = served.address.removesuffix("/")
    assert len(names) > 3 and [name for name in names if not name.startswith((mine, "blob:", "data:"))] == []


def test_all_fits_the_window_and_says_where_it_is(browser):
    wide, high = browser.run("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert (wide, high) == (1280, 720)
    edges = browser.state("view_Red")
    assert [edges[edge] for edge in ("left", "right", "top", "bottom")] == ["R", "L", "A", "P"]
    assert edges["count"] == 19 and "head.nrrd" in browser.text("#nx-case")


def test_wheel_and_slider_go_through_the_slices(browser):
    number, before = browser.state("view_Red")["number"], browser.view(0)
    browser.scroll(0, -2)
    until(lambda: browser.state("view_Red")["number"] != number, "the wheel does nothing")
    until(lambda: not np.array_equal(browser.view(0), before), "the picture stays the same")
    coronal = browser.state("view_Green")
    browser.click_slider(1, 0.75)
    until(lambda: browser.state("view_Green") != coronal, "the slider does nothing")
    assert abs(browser.state("view_Green")["number"] - 0.25 * 64) < 3  # rows run from front to back, A mm the other way


def test_windows_change_the_picture(browser):
    before = browser.view(0).mean()
    browser.click(".nx-window", 3)
    until(lambda: browser.state("window") == "Bone" and browser.view(0).mean() < before - 5, "bone looks like brain")
    browser.click(".nx-window", 0)
    until(lambda: abs(browser.view(0).mean() - before) < 1, "the brain window does not come back")


def test_a_run_can_be_cancelled(browser):
    browser.click("#nx-run")
    until(lambda: browser.state("running"), "the run does not start")
    browser.click("#nx-cancel")
    until(lambda: browser.state("progress").startswith("Cancelled"), "the run does not end")
    assert not browser.state("running") and browser.state("rows") == []


def test_the_page_names_no_model_of_its_own(served, browser, tmp_path):
    """What comes over the socket is a stranger's word: a path of this computer is no model of the list."""
    browser.set_state("model", str(tmp_path / "any.safetensors"))
    browser.click("#nx-run")
    until(lambda: browser.state("error"), "nothing is said")
    assert "not installed here" in browser.state("error") and not browser.state("running")
    browser.set_state("error", "")
    browser.set_state("model", browser.state("models")[0]["value"])


def test_run_shows_outline_numbers_map_and_report(served, browser):
    assert red(browser.view(0)) == 0
    browser.click("#nx-run")
    until(lambda: browser.state("progress") == "Done" or browser.state("error"), "the run does not end")
    assert browser.state("error") == ""
    until(lambda: red(browser.view(0)) > 2000 and red(browser.view(2)) > 500, "there is no outline")
    until(lambda: red(browser.view(1)) > 500, "there is no surface")
    first = browser.state("rows")[0]
    assert first["name"] == "Total volume" and float(first["value"]) > 100 and first["unit"] == "mL"
    shown = browser.text("#nx-measurements")
    assert first["value"] in shown and first["interval"] in shown and "to" in first["interval"]
    assert "research use only" in browser.text("#nx-panel").lower()
    fetched = browser.run("return fetch('report').then(answer => answer.text())")
    assert "<html" in fetched and first["unit"] in fetched

    browser.click(".nx-segment")
    until(lambda: red(browser.view(0)) == 0, "the segment is not hidden")
    browser.set_state("map", browser.state("maps")[1]["value"])
    until(lambda: browser.state("legend") and browser.text(".nx-legend"), "there is no legend")
    legend = browser.state("legend")
    assert legend["gradient"].startswith("linear-gradient") and float(legend["high"]) > float(legend["low"])
    slices = browser.state("key_slices")
    if slices:
        browser.click(".nx-key-slice", len(slices) - 1)
        until(lambda: browser.state("view_Red")["number"] == slices[-1]["k"] + 1, "the slice is not shown")


def test_another_case_is_opened_and_faults_are_one_sentence(home, browser):
    browser.click("#nx-open")
    until(lambda: browser.state("entries"), "nothing is listed")
    names = [entry["name"] for entry in browser.state("entries")]
    assert names == ["broken.nrrd", "head.nrrd", "other.nii.gz"]  # not the link that leads outside
    browser.click(".nx-entry", 0)
    sentence = until(lambda: browser.state("error"), "there is no error")
    assert "broken.nrrd" in sentence and str(home) not in sentence and sentence.endswith(".")
    assert browser.state("case_name") == "head.nrrd"
    browser.click("#nx-open")
    browser.click(".nx-entry", 2)
    until(lambda: browser.state("case_name") == "other.nii.gz", "the other scan is not shown")
    assert browser.state("rows") == [] and not browser.state("has_report") and browser.state("error") == ""
    until(lambda: red(browser.view(0)) == 0, "the earlier result is still there")


def test_ctrl_c_ends_it_and_leaves_nothing(served, browser):
    assert served.interrupt() == 0
    assert list(served.temporary.iterdir()) == []
    assert "Traceback" not in served.said and "Error" not in served.said, served.said


def test_it_ends_when_the_page_is_closed(home):
    page = ServedPage(home / "cases" / "head.nrrd", "--until-closed", home=home)
    browser = Browser()
    try:
        assert page.address, page.said
        browser.open(page.address)
        browser.open(page.address)  # loading it again is not closing it
        assert page.process.poll() is None
        browser.driver.get("about:blank")
        assert page.wait() == 0
        assert list(page.temporary.iterdir()) == []
    finally:
        browser.quit()
        page.end()
