"""One browser for all tests of the page; a fresh page for each, which may talk to its service alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .serving import CORPUS, Served, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the page is not tested: no playwright")
    if not CHROMIUM.is_file():
        pytest.skip(f"the page is not tested: no {CHROMIUM} (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("page"), CORPUS) as running:
        yield running


@pytest.fixture
def page(browser: Browser, service: Served) -> Iterator[Page]:
    """At the start page; the test fails if anything was asked of another host, or a script failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    made = context.new_page()
    foreign: list[str] = []
    failures: list[str] = []
    made.on(
        "request", lambda request: foreign.append(request.url) if not is_own(request.url, service) else None
    )
    made.on("pageerror", lambda error: failures.append(str(error)))
    made.goto(service.url)
    made.wait_for_selector("#facts:not(:empty)")
    yield made
    context.close()
    assert foreign == []
    assert failures == []


def is_own(url: str, service: Served) -> bool:
    """Whether a request stays with the service, or goes nowhere at all."""
    return url.startswith((f"{service.url}/", "data:", "blob:", "about:"))


def ask(page: Page, question: str) -> None:
    """Ask and wait until the answer is complete."""
    before = page.locator(".turn").count()
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_function("count => document.querySelectorAll('.turn').length > count", arg=before)
    page.wait_for_selector(".turn:last-child:not([aria-busy])")
