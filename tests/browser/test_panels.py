"""Panels and lists: nothing is shown twice, no focus is lost, and what is said is heard where one is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from .conftest import ask
from .scripted import DOCUMENT, answer, candidate, events, ranking, reply_with
from .serving import QUESTION, Served

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page, Route

LONG = "".join(f"{number:09} " for number in range(40_000))
MOST = 200_000


def give_text(route: Route) -> None:
    """As the service does: from `start` on, to `end` if that is said, at most so much at once."""
    asked = parse_qs(urlsplit(route.request.url).query)
    start, last = (int(asked.get(name, [default])[0]) for name, default in (("start", 0), ("end", len(LONG))))
    end = min(start + MOST, last, len(LONG))
    said = {"id": DOCUMENT, "source": "long.txt", "title": "", "length": len(LONG), "passages": []}
    route.fulfill(json=said | {"start": start, "end": end, "text": LONG[start:end]})


def shown(page: Page) -> str:
    text: str = page.locator("#viewer-text .prose").evaluate("node => node.textContent")
    return text


def test_a_long_document_is_read_backwards_without_a_repetition(page: Page, service: Served) -> None:
    page.route("**/text?*", give_text)
    page.goto(f"{service.url}/d/{DOCUMENT}#250000-250009")
    page.wait_for_selector("#viewer mark")
    assert page.locator("#viewer mark").inner_text() == "000025000"
    assert shown(page) == LONG[230_000:]
    for start in (80_000, 0):
        page.locator("#viewer .more").first.click()
        page.wait_for_function(
            "length => document.querySelector('#viewer-text .prose').textContent.length >= length",
            arg=len(LONG) - start,
        )
        assert shown(page) == LONG[start:]
    assert page.locator("#viewer .more").count() == 0


def test_the_focus_stays_near_what_was_taken_out(page: Page) -> None:
    page.click("#open-filters")
    for number, value in enumerate(("docs/a", "docs/b", "docs/c")):
        if number:
            page.click("text=Add a condition")
        page.locator(".filter-row").nth(number).locator("[aria-label=Value]").fill(value)
    page.locator(".filter-row button").nth(2).press("Enter")
    assert page.evaluate("document.activeElement.closest('.filter-row') !== null")
    page.locator("#filter-chips button").first.press("Enter")
    assert page.evaluate("document.activeElement.closest('#filter-chips') !== null")
    page.locator("#filter-chips button").first.press("Enter")
    assert page.evaluate("document.activeElement.id") == "open-filters"


def test_a_document_that_is_kept_keeps_the_focus(page: Page, tmp_path: Path) -> None:
    (tmp_path / "kept.md").write_text("Kept.", encoding="utf-8")
    page.click("#open-library")
    page.set_input_files("#files", tmp_path / "kept.md")
    page.wait_for_selector("#uploads .is-added")
    assert page.locator("#library [role=status]").inner_text().startswith("kept.md: added")
    remove = page.locator("[aria-label='Remove kept.md']")
    remove.press("Enter")
    page.get_by_role("button", name="Keep").press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Remove kept.md"
    remove.press("Enter")
    page.get_by_role("button", name="Remove", exact=True).press("Enter")
    remove.wait_for(state="detached")
    page.wait_for_function("() => document.activeElement.id === 'library-title'")
    assert page.locator("#library [role=status]").inner_text() == "kept.md is removed."


def test_a_copied_link_is_said_where_one_is(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, QUESTION)
    page.locator(".answer .chip").first.click()
    page.wait_for_selector("#viewer mark")
    page.click("#viewer-link")
    assert page.locator("#viewer .toast").inner_text() == "Link copied."
    assert page.locator("#viewer [role=status]").inner_text() == "Link copied."


def test_a_clipboard_that_is_refused_is_said(page: Page) -> None:
    ask(page, QUESTION)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.get_by_role("button", name="Copy", exact=False).first.click()
    page.wait_for_selector(".toast")
    assert page.locator(".toast").inner_text() == "The browser does not let this page copy."


def test_without_a_reranker_nothing_is_below_a_threshold(page: Page) -> None:
    unscored = [candidate(number, None, kept=number < 3) for number in (1, 2, 3)]
    told = ranking(threshold=None, candidates=unscored, degraded=["rerank"])
    reply_with(page, events(answer("Leave lasts fourteen months [1].", ranking=told)))
    ask(page, QUESTION)
    assert page.locator(".after .threshold").inner_text() == "Not used"
    assert page.locator(".after .row.is-cut").count() == 1
    assert "below the threshold" not in page.locator(".ranking summary").inner_text()


def test_a_letter_being_composed_asks_nothing(page: Page) -> None:
    """Safari says of the Enter that ends a composition only by its code that it is none."""
    page.fill("#question", QUESTION)
    page.evaluate(
        "document.querySelector('#question').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229, bubbles: true, cancelable: true}))"
    )
    assert page.input_value("#question") == QUESTION
    assert page.locator(".turn").count() == 0
