"""For everybody: keyboard alone, a narrow screen, dark colours, a screen reader, and what axe finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import ask
from .scripted import answer, candidate, events, ranking, reply_with
from .serving import QUESTION, Served
from .test_states import checked

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def serious(page: Page) -> list[str]:
    """What axe calls serious or critical on the page as it is."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html']}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_serious(page: Page, theme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    assert serious(page) == []
    reply_with(page, events(checked(status="partial", degraded=["rerank"])))
    ask(page, "How long is leave?")
    page.click("#open-filters")
    assert serious(page) == []
    page.click("#open-library")
    page.wait_for_selector(".documents li")
    assert serious(page) == []


def test_axe_finds_nothing_serious_in_a_document(page: Page) -> None:
    ask(page, QUESTION)
    page.locator(".answer .chip").first.click()
    page.wait_for_selector("#viewer mark")
    assert serious(page) == []


def test_axe_is_awake(page: Page) -> None:
    page.evaluate("document.querySelector('#question').labels[0].remove()")
    page.evaluate("document.querySelector('#question').placeholder = ''")
    assert any(found.startswith("label:") for found in serious(page))


def test_everything_works_without_a_mouse(page: Page) -> None:
    page.keyboard.type(QUESTION)
    assert page.input_value("#question") == QUESTION
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn:not([aria-busy]) .chip")
    reach(page, "a.chip")
    page.wait_for_selector("#card:visible")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer mark")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('a.chip')")
    reach(page, "summary")
    page.keyboard.press("Enter")
    assert page.locator(".ranking").get_attribute("open") is None
    page.keyboard.press("1")
    page.wait_for_selector("#viewer mark")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector("#keys:visible")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "question"


def test_no_keyboard_slides_over_the_page_of_a_phone(browser: Browser, service: Served) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone = context.new_page()
    phone.goto(service.url)
    phone.wait_for_selector("#facts:not(:empty)")
    assert phone.evaluate("document.activeElement.id") != "question"
    context.close()


def reach(page: Page, selector: str) -> None:
    """Press Tab, back and forth through the page, until it is there."""
    for _ in range(80):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Shift+Tab" if selector == "a.chip" else "Tab")
    pytest.fail(f"Tab never reaches {selector}")


def test_single_keys_can_be_switched_off(page: Page) -> None:
    page.click("#open-keys")
    page.click("#single-keys")
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") != "question"


@pytest.mark.parametrize("width", [360, 820])
def test_nothing_sticks_out_of_a_narrow_screen(page: Page, width: int) -> None:
    long = "Unbreakable" * 30
    page.set_viewport_size({"width": width, "height": 740})
    reply_with(page, events(answer(f"Wide `{long}`, {long}.\n\n| a | b |\n|---|---|\n| {long} | {long} |")))
    ask(page, f"{long} {QUESTION}")
    page.wait_for_selector(".after .row")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = page.evaluate(
        "width => [...document.querySelectorAll('button, .chip, .source, .row, .note, textarea')]"
        ".filter(node => node.getBoundingClientRect().right > width + 1)"
        ".map(node => node.outerHTML.slice(0, 99))",
        width,
    )
    assert outside == []
    assert page.locator(".links .link").count() >= 2
    for selector in ("#send", "#open-library", "#theme", "#open-filters"):
        box = page.locator(selector).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24


@pytest.mark.parametrize("width", [360, 700, 900, 1280])
def test_words_of_the_ranking_neither_break_nor_meet(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    ask(page, QUESTION)
    heads = [page.locator(f".{name}-head h4").evaluate(ENDS) for name in ("before", "after")]
    assert heads[0]["right"] + 4 <= heads[1]["left"]
    for label in page.locator(".board .label:visible").all():
        assert label.evaluate("node => node.scrollWidth <= node.clientWidth + 1"), label.inner_text()
        assert label.evaluate("node => node.getBoundingClientRect().height") < 24, label.inner_text()


@pytest.mark.parametrize("width", [360, 1280])
def test_what_is_said_of_a_passage_hides_nothing(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    seen = ranking(candidates=[candidate(1, 0.9, truncated=True, duplicates=[{"id": "x"}])])
    reply_with(page, events(answer("Fourteen months.", ranking=seen)))
    ask(page, "How long is leave?")
    score = page.locator(".after .percent").bounding_box()
    tags = page.locator(".after .tags").bounding_box()
    assert score is not None
    assert tags is not None
    assert score["y"] + score["height"] <= tags["y"] + 1


ENDS = """node => {
  const range = document.createRange();
  range.selectNodeContents(node);
  const { left, right } = range.getBoundingClientRect();
  return { left, right };
}"""


def test_dark_as_the_system_has_it_and_by_choice(browser: Browser, service: Served) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(service.url)
    assert lightness(page) < 60
    page.click("#theme")
    assert lightness(page) > 200
    page.click("#theme")
    assert lightness(page) < 60
    page.reload()
    page.wait_for_selector("#facts:not(:empty)")
    page.emulate_media(color_scheme="light")
    assert lightness(page) < 60
    context.close()


def lightness(page: Page) -> int:
    """Of the page's ground, 0 to 255."""
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")[:3])


def test_a_screen_reader_hears_sentences_and_the_end(page: Page) -> None:
    page.evaluate(
        "heard = []; new MutationObserver(() => heard.push(document.querySelector('#live').textContent))"
        ".observe(document.querySelector('#live'), {childList: true})"
    )
    reply_with(page, events(checked()))
    ask(page, "How long is leave?")
    heard: list[str] = page.evaluate("heard")
    assert page.locator("#live").get_attribute("aria-live") == "polite"
    assert page.locator("#live").inner_text() == "The answer is complete, with 2 citations."
    assert heard
    assert page.locator(".question").evaluate("node => node.tagName") == "H2"
