"""The server's page in a real browser."""

import contextlib
import os
import re
import shutil

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from support.servers import serving
from zerocost import default_registry

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MATRIX = np.random.default_rng(0).random((4, 4)).tolist()

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        # Root has no sandbox for chromium; the page is our own.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield running
        running.close()


@contextlib.contextmanager
def opened(browser, url):
    """A page, with its errors and its requests to other hosts."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    try:
        yield page, complaints, asked
    finally:
        context.close()


def test_the_page_shows_the_servers_state(browser, tmp_path):
    with serving(default_registry()) as client:
        url = str(client.base_url).rstrip("/")
        for _ in range(7):
            client.post("/artifacts/sparse_attention/execute", json={"attention_matrix": MATRIX})
        client.post("/artifacts/sparse_attention/execute", json={"attention_matrix": 1})
        client.post("/services/memory/put", json={"key": "a", "value": [1, 2]})
        client.post("/services/memory/get", json={"key": "a"})
        with opened(browser, f"{url}/") as (page, complaints, asked):
            row = page.locator("#artifacts tr", has_text="sparse_attention")
            row.wait_for()
            cells = row.locator("td").all_inner_texts()
            assert cells[1:3] == ["7", "1"]
            assert len(cells) > 3
            assert all("s" in cell for cell in cells[3:]), cells
            memory = page.locator("#memory tr", has_text="lru_cache").locator("td").all_inner_texts()
            assert memory[1] == "1"
            assert memory[3:6] == ["1", "0", "100.0 %"]
            assert "ready" in page.locator("#state").inner_text()
            assert page.locator("#answers tr", has_text="422").locator("td").nth(1).inner_text() == "1"
            # It is live.
            client.post("/artifacts/sparse_attention/execute", json={"attention_matrix": MATRIX})
            expect(row.locator("td").nth(1)).to_have_text("8")
            expect(page.locator("polyline")).to_have_attribute("points", re.compile("[0-9]"))
            picture = tmp_path / "dashboard.png"
            page.screenshot(path=picture, full_page=True)
            assert picture.stat().st_size > 10_000
            assert complaints == []
            assert all(one.startswith(url) for one in asked), asked
            assert page.locator("#ask").is_hidden()


def test_the_page_asks_for_a_token_and_forgets_it(browser):
    with serving(default_registry(), token="s3cr3t") as client:
        url = str(client.base_url).rstrip("/")
        assert client.get("/metrics").status_code == 401
        with opened(browser, f"{url}/") as (page, _, asked):
            page.locator("#token").wait_for()
            assert page.locator("#page").is_hidden()
            page.fill("#token", "wrong")
            page.keyboard.press("Enter")
            expect(page.locator("#state")).to_contain_text("not valid")
            page.fill("#token", "s3cr3t")
            page.keyboard.press("Enter")
            page.locator("#artifacts tr", has_text="sparse_attention").wait_for()
            assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
            assert not any("s3cr3t" in one for one in asked)
            page.reload()
            page.locator("#token").wait_for()
            assert page.locator("#page").is_hidden()


@pytest.mark.parametrize("settings", [{}, {"token": "s3cr3t"}], ids=["open", "token"])
def test_an_artifact_is_tried_in_the_page_of_the_description(browser, settings):
    with (
        serving(default_registry(), **settings) as client,
        opened(browser, str(client.base_url).rstrip("/") + "/docs") as (page, _, _),
    ):
        if settings:
            page.fill("#token", "s3cr3t")
            page.keyboard.press("Tab")
        section = page.locator("section", has_text="POST /artifacts/sparse_attention/execute").first
        section.locator("button").click()
        expect(section.locator("pre")).to_contain_text("processed_attention")
        assert section.locator("pre").inner_text().startswith("200")
