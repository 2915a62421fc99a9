# SPDX-License-Identifier: MIT
"""A real server with gpt2-nano and a real chromium. COUPLET_PAGE=URL looks at a server that already runs instead."""
import os
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from serving import ROOT, Server, make_nano  # noqa: E402

SHOTS = ROOT / "build-check" / "page"


@pytest.fixture(scope="session")
def nano(tmp_path_factory):
    return make_nano(tmp_path_factory.mktemp("model") / "gpt2-nano")


@pytest.fixture(scope="session")
def base_url(request):
    if "COUPLET_PAGE" in os.environ:
        yield os.environ["COUPLET_PAGE"].rstrip("/")
        return
    with Server("--model", str(request.getfixturevalue("nano"))) as server:
        yield server.url


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        # As root, which is what CI is, chromium has no sandbox to offer.
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


class Visit:
    """One page in a fresh browser profile; remembers every address asked for and every complaint in the console."""

    def __init__(self, browser, url, **options):
        self.url, self.requests, self.complaints = url, [], []
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url + "/")

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=True)

    def foreign(self):
        return [r.url for r in self.requests if not r.url.startswith((self.url + "/", "data:"))]


@pytest.fixture
def visit(browser, base_url):
    opened = []

    def open_page(url=base_url, **options):
        options.setdefault("viewport", {"width": 1440, "height": 900})
        opened.append(Visit(browser, url, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.context.close()
