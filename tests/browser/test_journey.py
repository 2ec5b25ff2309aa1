"""What people do: ask, read, look a citation up, see the order change, stop, add a document, judge."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from .conftest import ask
from .serving import CORPUS, PAUSE, PAUSED, QUESTION, Served

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page


def test_an_answer_comes_with_chips_and_sources(page: Page) -> None:
    ask(page, QUESTION)
    answer = page.locator(".answer")
    assert answer.locator("strong").inner_text() == "fourteen months"
    chips = answer.locator(".chip")
    assert [chip.inner_text() for chip in chips.all()] == ["1", "1"]
    assert "handbook/leave.md" in (chips.first.get_attribute("aria-label") or "")
    assert page.locator(".source").first.locator(".card-link").inner_text() == "leave.md"
    assert page.locator(".question").inner_text() == QUESTION


def test_text_and_sources_are_there_before_the_answer_ends(page: Page) -> None:
    page.fill("#question", PAUSED)
    page.click("#send")
    page.wait_for_selector(".answer:has-text('fourteen months')")
    assert page.locator(".turn[aria-busy]").count() == 1
    assert page.locator(".source").count() >= 1
    assert page.locator("#stop").is_visible()
    assert not page.locator("#send").is_visible()
    page.click("#stop")
    page.wait_for_selector(".turn:not([aria-busy])")


def test_stop_ends_the_answer_and_says_so(page: Page) -> None:
    started = time.monotonic()
    page.fill("#question", PAUSED)
    page.press("#question", "Enter")
    page.wait_for_selector(".answer:has-text('fourteen months')")
    page.keyboard.press("Escape")
    page.wait_for_selector(".note:has-text('Stopped')")
    assert time.monotonic() - started < PAUSE + 10
    assert "never written" not in page.locator(".answer").inner_text()
    ask(page, QUESTION)
    assert page.locator(".turn").count() == 2


def test_a_citation_opens_its_document_with_the_passage_marked(page: Page) -> None:
    ask(page, QUESTION)
    page.locator(".answer .chip").first.click()
    mark = page.locator("#viewer mark").first
    mark.wait_for()
    marked = "".join(page.locator("#viewer mark").all_inner_texts())
    assert "Parental leave lasts fourteen months and is shared" in marked
    assert mark.is_visible()
    assert page.evaluate("document.querySelector('#viewer mark').getBoundingClientRect().top") < 900
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


@pytest.mark.parametrize(
    "words", ["fourteen months", "🌻 Tell the office", "third day", "Holidays are for rest."]
)
def test_a_link_marks_exactly_its_characters(page: Page, service: Served, words: str) -> None:
    identity = page.evaluate(
        "fetch('/api/v1/documents?contains=leave').then(r => r.json()).then(r => r.documents[0].id)"
    )
    start = CORPUS["handbook/leave.md"].index(words)
    page.goto(f"{service.url}/d/{identity}#{start}-{start + len(words)}")
    page.wait_for_selector("#viewer mark")
    assert "".join(page.locator("#viewer mark").all_inner_texts()) == words
    page.click("#viewer-plain")
    assert "".join(page.locator("#viewer mark").all_inner_texts()) == words


def test_the_card_shows_what_a_citation_rests_on(page: Page) -> None:
    ask(page, QUESTION)
    page.locator(".answer .chip").first.hover()
    card = page.locator("#card")
    card.wait_for(state="visible")
    assert "fourteen months" in card.inner_text()
    assert "leave.md" in card.inner_text()
    page.locator(".question").hover()
    card.wait_for(state="hidden")


def test_before_and_after_reranking(page: Page) -> None:
    ask(page, QUESTION)
    ranks = page.locator(".after .row .rank").all_inner_texts()
    assert [rank.split()[-1] for rank in ranks] == [str(number) for number in range(1, len(ranks) + 1)]
    assert len(ranks) > 1
    before = [int(text.split()[-1]) for text in page.locator(".before .row .rank").all_inner_texts()]
    assert before == sorted(before)
    links = page.locator(".links .link")
    shared = set(ids(page, ".before .row")) & set(ids(page, ".after .row"))
    assert set(ids(page, ".links .link")) == shared
    assert links.count() == len(shared) > 1
    assert "relevance" in page.locator(".after-head").inner_text()
    assert page.locator(".legend li").count() >= 2


def test_a_passage_stands_out_on_both_sides(page: Page) -> None:
    ask(page, QUESTION)
    first = page.locator(".after .row").first
    identity = first.get_attribute("data-passage")
    first.hover()
    assert set(ids(page, ".is-single")) == {identity}


def ids(page: Page, selector: str) -> list[str]:
    found: list[str] = page.eval_on_selector_all(selector, "nodes => nodes.map(node => node.dataset.passage)")
    return found


def test_what_the_threshold_cut_is_below_a_line(page: Page) -> None:
    ask(page, QUESTION)
    cut = page.locator(".after .row.is-cut")
    assert cut.count() >= 1
    line = page.locator(".after .threshold")
    assert line.inner_text() == "Below the threshold of 30%: not used"
    order = page.eval_on_selector_all(".after > li", "nodes => nodes.map(node => node.className)")
    assert order.index("threshold") < order.index("row is-cut")
    assert page.locator(".source").count() < page.locator(".after .row").count()


def test_nothing_relevant_is_said_and_the_nearest_are_shown(page: Page) -> None:
    ask(page, "Which planet has a largest moon?")
    assert page.locator(".note").first.inner_text().startswith("The documents do not say")
    assert "No passage is relevant enough.\n" in page.locator(".note").first.inner_text()
    assert page.locator(".answer .chip").count() == 0
    assert page.locator(".sources h3").inner_text() == "Nearest passages"


def test_a_question_goes_with_what_was_said_before(page: Page, service: Served) -> None:
    ask(page, QUESTION)
    ask(page, "Who shares the parental leave?")
    earlier = service.generator.histories[-1]
    assert [turn.role for turn in earlier] == ["user", "assistant"]
    assert earlier[0].text == QUESTION
    page.click("#new")
    ask(page, QUESTION)
    assert service.generator.histories[-1] == ()


def test_a_filter_narrows_what_is_searched(page: Page) -> None:
    page.click("#open-filters")
    page.fill(".filter-row [aria-label=Value]", "docs/handbook/office")
    page.press("#question", "Escape")
    assert page.locator("#filter-chips").inner_text() == "source begins with docs/handbook/office"
    ask(page, QUESTION)
    assert not page.locator("#filters").is_visible(), "it would stand before the answer"
    assert set(page.locator(".card-link").all_inner_texts()) == {"office.txt"}
    page.click("#filter-chips button")
    ask(page, QUESTION)
    assert "leave.md" in page.locator(".turn:last-child .card-link").all_inner_texts()


def test_a_document_is_added_found_and_removed(page: Page, tmp_path: Path) -> None:
    new = tmp_path / "bees.md"
    new.write_text("# Bees\n\nBees dance to tell where nectar is.\n", encoding="utf-8")
    page.click("#open-library")
    page.wait_for_selector(".documents li:has-text('leave.md')")
    page.set_input_files("#files", [new, *empty_files(tmp_path)])
    page.wait_for_selector(".uploads .is-added:has-text('bees.md')")
    page.wait_for_selector(".uploads li:has-text('empty.md'):not(:has(progress))")
    assert "not added" in page.locator(".uploads li:has-text('empty.md')").inner_text()
    page.wait_for_selector(".documents li:has-text('bees.md')")
    page.keyboard.press("Escape")
    ask(page, "Why do bees dance?")
    assert "Bees dance to tell where nectar is." in page.locator(".answer").inner_text()
    page.click("#open-library")
    page.click("[aria-label^='Remove'][aria-label$='bees.md']")
    page.click(".confirm .is-danger")
    page.wait_for_selector(".documents li:has-text('bees.md')", state="detached")


def empty_files(folder: Path) -> list[Path]:
    empty = folder / "empty.md"
    empty.write_text("", encoding="utf-8")
    return [empty]


def test_thumbs_reach_the_judgements(page: Page, service: Served) -> None:
    ask(page, QUESTION)
    with page.expect_response("**/api/v1/feedback") as reply:
        page.locator(".source").first.locator(".thumb").first.click()
    assert reply.value.status == 201
    assert page.locator(".source").first.locator(".thumb").first.get_attribute("aria-pressed") == "true"
    with page.expect_response("**/api/v1/feedback"):
        page.locator(".actions .thumb").nth(1).click()
    with page.expect_response("**/api/v1/feedback") as reply:
        page.fill(".why input", "It is too short.")
        page.press(".why input", "Enter")
    assert reply.value.status == 201
    written = [
        json.loads(line)
        for file in service.folder.rglob("*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    assert any(
        row.get("question") == QUESTION and row.get("source", "").endswith("leave.md") for row in written
    )


def test_copy_gives_markdown_with_working_links(page: Page, service: Served) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=service.url)
    ask(page, QUESTION)
    page.click("[aria-label='Copy with citations']")
    page.wait_for_selector(".toast")
    copied: str = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"**{QUESTION}**\n\nParental leave lasts **fourteen months** [1].")
    address = copied.split("<")[1].split(">", maxsplit=1)[0]
    page.goto(address)
    page.wait_for_selector("#viewer mark:has-text('fourteen months')")
