"""What is said when not all went well: unsupported, degraded, cut, broken off, refused, out of reach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .conftest import ask
from .scripted import (
    DOCUMENT,
    TEXT,
    answer,
    candidate,
    citation,
    claim,
    events,
    problem,
    ranking,
    refuse_with,
    reply_with,
)
from .serving import CORPUS, QUESTION, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TWO = "🌻 Leave lasts fourteen months [1]. It is paid by the moon [1]."
FIRST, SECOND = "Leave lasts fourteen months [1].", "It is paid by the moon [1]."


def checked(**more: object) -> dict[str, object]:
    """An answer whose second sentence has no support."""
    return answer(
        TWO,
        claims=[
            claim(TWO, FIRST, supported=True, support=0.97),
            claim(TWO, SECOND, supported=False, support=0.02),
        ],
        citations=[
            citation(TWO, "[1]", supported=True, support=0.97, quote="lasts fourteen months", quote_start=6),
            citation(TWO, "[1]", 1, supported=False, support=0.02),
        ],
        **more,
    )


def test_a_sentence_without_support_is_marked_and_no_other(page: Page) -> None:
    reply_with(page, events(checked(status="partial", reasons=["One sentence has no support."])))
    ask(page, "How long is leave?")
    marked = "".join(page.locator(".answer mark.unsupported").all_inner_texts())
    assert marked.startswith("It is paid by the moon")
    assert page.locator(".answer .flag").inner_text() == "not supported"
    chips = page.locator(".answer .chip")
    assert "is-supported" in (chips.nth(0).get_attribute("class") or "")
    assert "is-unsupported" in (chips.nth(1).get_attribute("class") or "")
    assert page.locator(".checked").inner_text() == "1 of 2 sentences supported by the sources"
    assert "One sentence has no support." in page.locator(".note.is-warning").inner_text()


def test_the_quote_is_marked_more_strongly_than_its_passage(page: Page) -> None:
    part = {
        "id": DOCUMENT,
        "source": "leave.txt",
        "title": "",
        "length": len(TEXT),
        "start": 0,
        "end": len(TEXT),
    }
    pages = [{"id": "p1", "start": 0, "end": 29, "page": 1, "page_name": "", "title_path": []}]
    pages += [
        {"id": "p2", "start": 29, "end": len(TEXT), "page": 2, "page_name": "slide 2", "title_path": []}
    ]
    page.route("**/text?*", lambda route: route.fulfill(json=part | {"text": TEXT, "passages": pages}))
    reply_with(page, events(checked()))
    ask(page, "How long is leave?")
    page.locator(".answer .chip").first.click()
    page.wait_for_selector("#viewer mark.quote")
    assert "".join(page.locator("#viewer mark.quote").all_inner_texts()) == "lasts fourteen months"
    assert "".join(page.locator("#viewer mark.passage").all_text_contents()) == TEXT
    assert page.locator(".page-label").all_inner_texts() == ["Page 1", "slide 2"]


def test_the_card_says_whether_the_sentence_is_supported(page: Page) -> None:
    reply_with(page, events(checked()))
    ask(page, "How long is leave?")
    page.locator(".answer .chip").first.hover()
    page.wait_for_selector(
        "#card:has-text('Supports the sentence (97%)') mark:has-text('lasts fourteen months')"
    )
    page.locator(".answer .chip").nth(1).hover()
    page.wait_for_selector("#card:has-text('Does not support the sentence (2%)')")


def test_a_documents_own_bracket_is_no_citation(page: Page) -> None:
    text = "The law [1] says fourteen months [1]."
    reply_with(page, events(answer(text, claims=[claim(text, text)], citations=[citation(text, "[1]", 1)])))
    ask(page, "How long is leave?")
    assert page.locator(".answer .chip").count() == 1
    assert page.locator(".answer").inner_text().startswith("The law [1] says fourteen months")
    assert page.locator(".checked").inner_text() == "Not checked against the sources"


def test_degraded_stages_and_what_was_cut_are_said(page: Page) -> None:
    seen = ranking(
        candidates=[candidate(1, 0.9, truncated=True, duplicates=[{"id": "x"}]), candidate(2, None)],
        degraded=["rerank"],
        notices=["The question was cut after 512 tokens."],
    )
    reply_with(page, events(answer("Fourteen months.", degraded=["llm", "rerank"], ranking=seen, dropped=2)))
    ask(page, "How long is leave?")
    said = page.locator(".notes").inner_text()
    assert said.count("The reranker did not work") == 1
    assert "The language model did not answer" in said
    assert "The question was cut after 512 tokens." in said
    assert "2 more relevant passages did not fit" in page.locator(".sources").inner_text()
    assert "only its beginning was read" in page.locator(".after .tags").inner_text()
    assert page.locator(".after .percent").all_inner_texts() == ["90%", "not read"]


def test_an_error_in_mid_stream_keeps_what_was_written(page: Page) -> None:
    failed = problem(
        502, "The language model failed", detail="It hung up.", hint="Try again.", code="upstream_failed"
    )
    reply_with(page, events(answer("Fourteen months."), ends=[("error", failed)]))
    ask(page, "How long is leave?")
    assert page.locator(".answer").inner_text() == "Fourteen months."
    assert page.locator(".note.is-error p").all_inner_texts() == [
        "The language model failed",
        "It hung up.",
        "Try again.",
    ]
    assert page.locator(".source").count() == 1


def test_a_stream_that_ends_early_is_an_error(page: Page) -> None:
    reply_with(page, events(answer("Fourteen months."), ends=[]))
    ask(page, "How long is leave?")
    assert "The answer broke off" in page.locator(".note.is-error").inner_text()


def test_a_busy_service_is_asked_again_after_its_time(page: Page) -> None:
    refuse_with(page, 429, headers={"Retry-After": "2"}, title="Too many requests", code="overloaded")
    ask(page, QUESTION)
    again = page.locator(".note.is-error button")
    assert again.is_disabled()
    assert "Try again in" in again.inner_text()
    page.unroute("**/api/v1/answer")
    page.wait_for_selector(".note.is-error button:not([disabled])")
    again.click()
    page.wait_for_selector(".answer .chip")
    assert page.locator(".turn").count() == 1


def test_a_service_out_of_reach_is_said_at_the_start_and_later(page: Page) -> None:
    page.route("**/api/v1/answer", lambda route: route.abort())
    ask(page, QUESTION)
    assert "The service cannot be reached" in page.locator(".note.is-error").inner_text()
    page.route("**/api/v1/status", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("#banner:has-text('cannot be reached')")
    page.unroute("**/api/v1/status")
    page.click("#banner button")
    page.wait_for_selector("#facts:not(:empty)")
    assert not page.locator("#banner").is_visible()


def test_a_key_is_asked_for_once_and_kept_in_the_tab(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, CORPUS, api_key="a-key-for-this-test-0123456789") as closed:
        context = browser.new_context()
        page = context.new_page()
        page.goto(closed.url)
        page.fill("#access-key", "wrong")
        page.press("#access-key", "Enter")
        page.wait_for_selector("#access-reason:has-text('not accepted')")
        page.fill("#access-key", "a-key-for-this-test-0123456789")
        page.press("#access-key", "Enter")
        page.wait_for_selector("#facts:not(:empty)")
        ask(page, QUESTION)
        assert page.locator(".answer .chip").count() == 2
        page.reload()
        page.wait_for_selector("#facts:not(:empty)")
        assert page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0
        context.close()


def test_an_empty_index_says_how_to_begin(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, {"empty/none.bin": "nothing to read"}) as empty:
        context = browser.new_context()
        page = context.new_page()
        page.goto(empty.url)
        page.wait_for_selector("#facts:has-text('Nothing is indexed yet')")
        page.click("#facts button")
        page.wait_for_selector("#library:visible >> text=No document here.")
        context.close()
