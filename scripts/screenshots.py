"""Take the pictures of the page that are in docs/: an answer with a citation's card, and the two orders.

crossrag serve --index GUIDE &        # an index of src/crossrag/examples
python scripts/screenshots.py http://127.0.0.1:8777
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parent.parent / "docs"
CHROMIUM = "/usr/bin/chromium"
PATIENCE = 120_000


def main(url: str) -> None:
    """Ask the service at `url` two questions."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        page.set_default_timeout(PATIENCE)
        ask(page, url, "What happens when an ingestion is interrupted?")
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.locator(".answer .chip").first.hover()
        page.wait_for_selector("#card:visible")
        page.screenshot(path=DOCS / "page-answer.png")
        # High enough that the field to ask in does not lie over the ranking.
        page.set_viewport_size({"width": 1280, "height": 1700})
        ask(page, url, "How do I restore a backup of the index?")
        page.mouse.move(5, 5)
        page.locator(".ranking").screenshot(path=DOCS / "page-ranking.png")
        browser.close()


def ask(page: Page, url: str, question: str) -> None:
    """Ask on a fresh page, and wait for the answer and for what the page looks up afterwards."""
    page.goto(url)
    page.wait_for_selector("#facts:not(:empty)")
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_selector(".turn:not([aria-busy])")
    page.wait_for_load_state("networkidle")


if __name__ == "__main__":
    main(sys.argv[1])
