"""What an address carries: question, collection, conditions, a place in a document. Wrong ones are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import PATIENCE, ask, is_own
from .payloads import payloads
from .serving import CORPUS, QUESTION, Served, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

PARROTS = "What do parrots eat?"
BIRDS = {"parrots.md": "# Parrots\n\nParrots eat nuts, and a few parrots eat figs.\n"}
SHIPS = {"ships.md": "# Ships\n\nNo parrots eat here: a ship carries coal.\n", "coal.txt": "Coal burns.\n"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with three collections."""
    folder = tmp_path_factory.mktemp("fleet")
    with served(folder, CORPUS, others={"birds": BIRDS, "old-ships": SHIPS}) as running:
        yield running


@contextmanager
def opened(browser: Browser, service: Served, address: str = "/") -> Iterator[Page]:
    """A new browser at an address; fails if anything was asked of another host, or a script failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=service.url)
    page = context.new_page()
    foreign: list[str] = []
    failures: list[str] = []
    page.on("request", lambda one: foreign.append(one.url) if not is_own(one.url, service) else None)
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(service.url + address)
    page.wait_for_selector("#facts:not(:empty)")
    yield page
    context.close()
    assert foreign == []
    assert failures == []


def copied(page: Page, button: str) -> str:
    page.click(f"[aria-label='{button}']")
    page.wait_for_selector(".toast:has-text('Link copied')")
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def narrow(page: Page, conditions: list[tuple[str, str, str]]) -> None:
    """Fill the rows of the filter."""
    page.click("#open-filters")
    for number, (key, comparison, value) in enumerate(conditions):
        if number:
            page.click("text=Add a condition")
        row = page.locator(".filter-row").nth(number)
        row.locator("[aria-label=Field]").fill(key)
        row.locator("select").select_option(comparison)
        row.locator("[aria-label=Value]").fill(value)


def sent(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = request.post_data_json or {}
    return body


def filter_in_use(page: Page) -> Any:
    return page.evaluate("import('/static/filters.js').then(module => module.currentFilter())")


CONDITIONS = [
    ("source", "prefix", "docs/handbook/"),
    ("title", "not", "a: b & c=d #e % 🌻"),
    ("page", "lte", "3"),
]


def test_a_link_to_a_question_carries_its_conditions(browser: Browser, service: Served) -> None:
    with opened(browser, service) as page:
        narrow(page, CONDITIONS)
        expected = filter_in_use(page)
        ask(page, QUESTION)
        page.click("#open-filters")
        page.click(".filter-actions >> text=Clear")
        link = copied(page, "Copy a link to this question")
    with opened(browser, service, link.removeprefix(service.url)) as page:
        assert page.input_value("#question") == QUESTION
        assert page.locator(".turn").count() == 0, "a link asks nothing by itself"
        assert filter_in_use(page) == expected
        assert page.locator("#filter-chips li").all_inner_texts() == [
            "source begins with docs/handbook/",
            "title is not a: b & c=d #e % 🌻",
            "page is at most 3",
        ]
        with page.expect_request("**/api/v1/answer") as asked:
            ask(page, QUESTION)
        assert sent(asked.value)["where"] == expected


def test_what_an_answer_was_narrowed_to_stands_with_it(page: Page) -> None:
    narrow(page, [("source", "prefix", "docs/garden")])
    ask(page, QUESTION)
    page.click("#filter-chips button")
    ask(page, QUESTION)
    first, second = page.locator(".turn").all()
    assert first.locator(".narrowed").inner_text() == "Only where source begins with docs/garden"
    assert "Only documents for which the filter holds" in first.locator(".note").first.inner_text()
    assert second.locator(".narrowed").count() == 0


def test_asked_again_a_question_is_narrowed_as_it_was(page: Page) -> None:
    narrow(page, [("source", "prefix", "docs/garden")])
    ask(page, QUESTION)
    page.click("#filter-chips button")
    with page.expect_request("**/api/v1/answer") as asked:
        page.get_by_role("button", name="Ask again").click()
    assert sent(asked.value)["where"] == {"source": {"prefix": "docs/garden"}}
    page.wait_for_selector(".turn:not([aria-busy]) .narrowed")


def test_conditions_survive_a_reload_and_go_when_they_are_taken_out(page: Page, service: Served) -> None:
    narrow(page, [("source", "is", "docs/whales.txt"), ("source", "is", "docs/garden.md")])
    page.locator(".filter-row input").last.press("Tab")
    page.reload()
    page.wait_for_selector("#filter-chips li >> nth=1")
    page.locator("#filter-chips button").first.click()
    page.reload()
    page.wait_for_selector("#facts:not(:empty)")
    assert page.locator("#filter-chips li").all_inner_texts() == ["source is docs/garden.md"]
    page.click("#filter-chips button")
    assert page.url == f"{service.url}/"


def test_a_question_of_a_link_stays_until_it_is_asked(browser: Browser, service: Served) -> None:
    with opened(browser, service, "/?q=How%20long%3F&filter=source:prefix:docs/") as page:
        page.click("#filter-chips button")
        page.reload()
        page.wait_for_selector("#facts:not(:empty)")
        assert page.input_value("#question") == "How long?"
        ask(page, QUESTION)
        assert page.url == f"{service.url}/"


@pytest.mark.parametrize(
    "condition", ["source", "source:prefix:", "source:like:x", "a b:is:x", "and:is:x", ":is:x", ""]
)
def test_a_condition_that_cannot_be_read_is_told(browser: Browser, service: Served, condition: str) -> None:
    with opened(browser, service, f"/?filter={condition}&filter=page:is:1") as page:
        page.wait_for_selector("#banner:has-text('A condition of the link cannot be read')")
        assert page.locator("#filter-chips li").all_inner_texts() == ["page is 1"]


def test_each_collection_is_asked_by_itself(browser: Browser, fleet: Served) -> None:
    with opened(browser, fleet) as page:
        assert page.locator("#collection option").all_inner_texts() == ["default", "birds", "old-ships"]
        assert page.locator("#facts").inner_text().startswith("6 documents")
        for name, file in (("birds", "parrots.md"), ("old-ships", "ships.md"), ("birds", "parrots.md")):
            page.select_option("#collection", name)
            with page.expect_request("**/api/v1/answer") as asked:
                ask(page, PARROTS)
            assert sent(asked.value)["collection"] == name
            assert page.locator(".turn").count() == 1, "another collection, another conversation"
            assert set(page.locator(".card-link").all_inner_texts()) == {file}
        page.click("#open-library")
        page.wait_for_selector(".documents li")
        assert page.locator(".documents .place").all_inner_texts() == ["docs-birds/parrots.md"]


def test_the_choice_of_a_collection_survives_a_reload(browser: Browser, fleet: Served) -> None:
    with opened(browser, fleet) as page:
        page.select_option("#collection", "old-ships")
        page.wait_for_selector("#facts:has-text('2 documents')")
        page.reload()
        page.wait_for_selector("#facts:has-text('2 documents')")
        assert page.input_value("#collection") == "old-ships"
        page.select_option("#collection", "default")
        page.reload()
        page.wait_for_selector("#facts:has-text('6 documents')")
        assert page.url == f"{fleet.url}/"


def test_links_lead_into_their_collection(browser: Browser, fleet: Served) -> None:
    with opened(browser, fleet, "/?collection=birds") as page:
        ask(page, PARROTS)
        chip = page.locator(".answer .chip").first.get_attribute("href") or ""
        card = page.locator(".card-link").first.get_attribute("href") or ""
        question = copied(page, "Copy a link to this question")
        page.click("[aria-label='Copy with citations']")
        page.wait_for_selector(".toast:has-text('with citations')")
        markdown: str = page.evaluate("navigator.clipboard.readText()")
        page.locator(".answer .chip").first.click()
        page.wait_for_selector("#viewer mark")
        passage = copied(page, "Copy link to this passage")
    addresses = [chip, card, *(link.removeprefix(fleet.url) for link in (passage, between(markdown)))]
    for address in addresses:
        with opened(browser, fleet, address) as page:
            page.wait_for_selector("#viewer mark:has-text('Parrots eat nuts')")
            assert page.input_value("#collection") == "birds"
    with opened(browser, fleet, question.removeprefix(fleet.url)) as page:
        assert page.input_value("#question") == PARROTS
        assert page.input_value("#collection") == "birds"


def between(text: str) -> str:
    return text.split("<")[1].split(">", maxsplit=1)[0]


def test_an_unknown_collection_in_a_link_is_told(browser: Browser, fleet: Served) -> None:
    with opened(browser, fleet, "/?q=What%3F&collection=fish") as page:
        page.wait_for_selector("#banner:has-text('There is no collection “fish” here')")
        assert "Questions go to “default” instead" in page.locator("#banner").inner_text()
        assert page.input_value("#question") == "What?"
        page.select_option("#collection", "birds")
        page.wait_for_selector("#banner", state="hidden")
        ask(page, PARROTS)
        page.reload()
        page.wait_for_selector("#facts:has-text('1 document')")
        assert not page.locator("#banner").is_visible()


def test_a_document_is_not_looked_for_in_another_collection(browser: Browser, fleet: Served) -> None:
    with opened(browser, fleet, "/?collection=birds") as page:
        identity = page.evaluate(
            "fetch('/api/v1/documents?collection=birds').then(r => r.json()).then(r => r.documents[0].id)"
        )
    for query in ("", "?collection=fish"):
        with opened(browser, fleet, f"/d/{identity}{query}#0-9") as page:
            page.wait_for_selector("#viewer .note.is-error")
            assert page.locator("#viewer mark").count() == 0


def test_another_place_in_the_address_is_shown_at_once(browser: Browser, fleet: Served) -> None:
    with opened(browser, fleet, "/?collection=birds") as page:
        ask(page, PARROTS)
        address = page.locator(".card-link").first.get_attribute("href") or ""
    with opened(browser, fleet, f"{address.partition('#')[0]}#0-9") as page:
        page.wait_for_selector("#viewer mark:has-text('Parrots')")
        page.evaluate("location.hash = '#11-22'")
        page.wait_for_selector("#viewer mark:has-text('Parrots eat')")


def test_a_link_full_of_payloads_does_nothing(browser: Browser, service: Served) -> None:
    hostile = [payload for payload in payloads() if "fired" in payload][::25]
    with opened(browser, service) as page:
        for payload in hostile:
            page.goto(
                service.url
                + page.evaluate(
                    "text => '/?' + new URLSearchParams([['q', text], ['collection', text],"
                    " ['filter', text], ['filter', 'source:prefix:' + text]])",
                    payload,
                )
            )
            page.evaluate("window.shots = 0; window.fired = () => { window.shots += 1 }; null")
            page.wait_for_selector("#banner:has-text('There is no collection')")
            page.wait_for_selector("#filter-chips li")
            assert page.evaluate("shots") == 0
            assert page.locator("main :is(script, img, iframe, object, embed, style)").count() == 0
