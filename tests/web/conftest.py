# SPDX-License-Identifier: MIT
"""A real chromium on real servers: gpt2-nano (quick, random) and SmolLM2.

COUPLET_PAGE=URL looks at a server that already runs instead. COUPLET_PAGE_SLOW=N makes every page's processor N times slower, which finds tests (and
parts of the page) that only work on a quick machine."""
import json
import os
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from serving import ROOT, Server, make_nano  # noqa: E402

SHOTS = ROOT / "build-check" / "page"
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
SLOW = float(os.environ.get("COUPLET_PAGE_SLOW", "1"))
PATIENCE_MS = 30_000 * SLOW  # nothing takes so long: only what never comes is waited for to the end
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"

expect.set_options(timeout=PATIENCE_MS)


# Files run beside each other (./check page): those that take long begin first, so that none stands alone at the end.
LONGEST = ("test_train_start", "test_train_job", "test_walk", "test_inside", "test_complete", "test_compare", "test_journey", "test_page", "test_answers")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def nano(tmp_path_factory):
    return make_nano(tmp_path_factory.mktemp("model") / "gpt2-nano")


@pytest.fixture(scope="module")  # a file's tests find nothing that another's made
def base_url(request):
    if "COUPLET_PAGE" in os.environ:
        yield os.environ["COUPLET_PAGE"].rstrip("/")
        return
    with Server("--model", str(request.getfixturevalue("nano"))) as server:
        yield server.url


@pytest.fixture(scope="module")  # a file's tests find nothing that another's made
def smol_url(request):
    """SmolLM2, and gpt2-nano beside it; files and jobs of all tests of a file are in its data directory."""
    if "COUPLET_PAGE" in os.environ:
        yield os.environ["COUPLET_PAGE"].rstrip("/")
        return
    assert SMOLLM2.exists(), f"{SMOLLM2} is missing: ./start --models brings it"
    nano = request.getfixturevalue("nano")
    with Server("--model", f"SmolLM2-135M-Instruct={SMOLLM2}", "--model", f"gpt2-nano={nano}") as server:
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
        self.page.set_default_timeout(PATIENCE_MS)
        if SLOW > 1:
            self.context.new_cdp_session(self.page).send("Emulation.setCPUThrottlingRate", {"rate": SLOW})
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url + "/")

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=True)

    def open(self, view):
        """Goes to a view as a link would; `view` may carry parameters: "inside?layer=2"."""
        self.page.evaluate("view => { location.hash = '#' + view }", view)
        self.page.locator(f"main.view-{view.split('?')[0]} > :nth-child(2)").wait_for()

    def keep(self, **stores):
        """What the page finds kept when it is loaded next: prompt="...", sampling={...}."""
        self.page.evaluate("""(stores) => { for (const [name, value] of Object.entries(stores))
          for (const place of [sessionStorage, localStorage]) place.setItem(`couplet.${name}`, JSON.stringify(value)); }""", stores)

    def serious(self):
        """What axe-core finds serious or critical on the page as it stands, in short words."""
        self.page.evaluate(AXE.read_text())  # through the debugger: the page's policy takes no injected script
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        return [f"{v['id']}: {n['html'][:160]} ({n['failureSummary'][:200]})" for v in found if v["impact"] in ("serious", "critical") for n in v["nodes"]]

    def fits(self):
        """Nothing sticks out sideways, once what is on its way has come and the page stands still."""
        for _ in range(20):
            if self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                return True
            self.page.wait_for_timeout(150 * SLOW)
        return False

    def still(self, locator):
        """The box of an element that has not moved for half a second: what comes later may push down what stands below it."""
        locator.scroll_into_view_if_needed()
        locator.evaluate("""(e, ms) => new Promise((done) => {
          let last = "", since = 0;
          const look = (now) => {
            const { x, y, width, height } = e.getBoundingClientRect(), box = [x, y, width, height].join();
            if (box !== last) [last, since] = [box, now];
            if (now - since >= ms) done(); else requestAnimationFrame(look);
          };
          requestAnimationFrame(look);
        })""", 500)
        return locator.bounding_box()

    def asked_at(self, part, times):
        """When the page asked for addresses with `part` in them, in ms by its own clock; waits until it has asked so many times."""
        when = "part => performance.getEntriesByType('resource').filter((e) => e.name.includes(part)).map((e) => e.startTime)"
        self.page.wait_for_function(f"([part, times]) => ({when})(part).length >= times", arg=[part, times])
        return self.page.evaluate(when, part)

    def take_alternative(self, tokens, at):
        """Points at a token and goes on from there with the likeliest other one. What the text begins with from then on, and the body of the request."""
        before = "".join(tokens.all_text_contents()[:at])
        tokens.nth(at).hover()
        other = self.page.locator(".token-card button.bar:not(.chosen)").first
        text = other.locator(".bar-text").inner_text().replace("␣", " ").replace("⏎", "\n")
        with self.page.expect_request("**/v1/completions") as sent:
            other.click()
        return before + text, json.loads(sent.value.post_data)

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
        one.page.unroute_all(behavior="ignoreErrors")  # a request that is being answered differently would fail in the middle of the next test
        one.context.close()
