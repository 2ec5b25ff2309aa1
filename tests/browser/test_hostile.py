"""What documents, models and the service say runs no script on the page and fetches nothing."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import crossrag

from .conftest import ask, is_own
from .payloads import EVIL, payloads
from .scripted import answer, candidate, claim, events, passage, ranking, refuse_with, reply_with
from .serving import Playing, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STATIC = Path(crossrag.__file__).parent / "server" / "static"
ALLOWED = [
    *("P", "H3", "H4", "H5", "H6", "UL", "OL", "LI", "BLOCKQUOTE", "PRE", "HR", "DIV"),
    *("TABLE", "THEAD", "TBODY", "TR", "TH", "TD"),
    *("CODE", "STRONG", "EM", "DEL", "A", "SPAN", "MARK", "BR"),
]

WATCH = "window.shots = 0; window.fired = () => { window.shots += 1 }; null"  # A function would be called.

FOUND = """
(allowed) => {
  const found = [];
  for (const node of document.querySelectorAll('.under-test, .under-test *')) {
    if (!node.closest('.under-test') || node.closest('svg.icon')) continue;
    if (!allowed.includes(node.tagName)) found.push(`<${node.tagName}>`);
    for (const { name, value } of node.attributes) {
      const loads = /^on|^style$|^src|^poster$|^background$|^action$|^srcdoc$|^data$/i.test(name);
      const leads = name === 'href' && (!/^(https?:\\/\\/|\\/d\\/d)/.test(value) || value.includes('@'));
      if (loads || leads) found.push(`${name}=${value}`);
    }
    if (node.target === '_blank' && !/noopener/.test(node.rel)) found.push('no noopener');
  }
  return found;
}
"""


def test_there_are_three_hundred_different_payloads() -> None:
    assert len(set(payloads())) >= 300


def test_the_renderer_lets_nothing_through(page: Page) -> None:
    page.evaluate(WATCH)
    page.evaluate(
        """async (payloads) => {
          const { renderProse } = await import('/static/prose.js');
          for (const payload of payloads) {
            const place = document.createElement('div');
            place.className = 'prose under-test';
            place.append(...renderProse(payload));
            document.body.append(place);
          }
        }""",
        payloads(),
    )
    assert page.locator(".under-test").count() == len(payloads())
    assert page.evaluate(FOUND, ALLOWED) == []
    page.wait_for_timeout(300)
    assert page.evaluate("shots") == 0


def test_the_detector_sees_what_a_careless_page_would_do(page: Page) -> None:
    page.evaluate(
        """() => {
          const place = document.createElement('div');
          place.className = 'under-test';
          place.innerHTML = '<img alt="" onerror="fired()"><a href="javascript:fired()">x</a>';
          document.body.append(place);
        }"""
    )
    found = page.evaluate(FOUND, ALLOWED)
    assert set(found) == {"<IMG>", "onerror=fired()", "href=javascript:fired()"}


def test_answers_full_of_payloads_do_nothing(browser: Browser, tmp_path: Path) -> None:
    """The whole way: from a model through the service into the page, several payloads in each answer."""
    groups = [payloads()[start : start + 40] for start in range(0, len(payloads()), 40)]
    scripts = {
        f"How long is parental leave, part {number}?": ["\n\n".join([*group, "leave [1]"])]
        for number, group in enumerate(groups)
    }
    corpus = {"leave.md": "# Parental leave\n\nHow long is parental leave? Fourteen months: part of it.\n"}
    with served(tmp_path, corpus, generator=Playing(scripts)) as hostile:
        context = browser.new_context()
        page = context.new_page()
        asked: list[str] = []
        dialogs: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        page.add_init_script(WATCH)
        page.goto(hostile.url)
        page.wait_for_selector("#facts:not(:empty)")
        for question in scripts:
            ask(page, question)
            assert page.locator(".turn:last-child .chip").count() >= 1
        page.evaluate(
            "document.querySelectorAll('.answer').forEach(node => node.classList.add('under-test'))"
        )
        page.wait_for_timeout(300)
        assert "fired()" in page.locator(".answer").first.inner_text()
        assert page.evaluate(FOUND, ALLOWED) == []
        assert page.evaluate("shots") == 0
        assert dialogs == []
        assert [url for url in asked if not is_own(url, hostile)] == []
        context.close()


def test_names_headings_and_words_of_the_service_do_nothing(page: Page) -> None:
    """Every text that the page shows, in place of what it should be."""
    page.evaluate(WATCH)
    for payload in [payload for payload in payloads() if "fired" in payload][::6]:
        everywhere: dict[str, Any] = {
            "source": payload,
            "title": payload,
            "location": f"{payload}, {payload}",
        }
        everywhere |= {"text": payload, "title_path": [payload], "page_name": payload}
        found = ranking(
            candidates=[candidate(1, 0.9) | everywhere, candidate(2, 0.1) | everywhere],
            notices=[payload],
            degraded=[payload],
            timings={payload: 1.0},
        )
        whole = answer(
            payload,
            claims=[claim(payload, payload, supported=False)],
            reasons=[payload],
            notices=[payload],
            status="partial",
            sources=[passage() | everywhere | {"number": 1, "relevance": 0.5, "chunk_ids": []}],
            ranking=found,
        )
        page.unroute_all()
        reply_with(page, events(whole))
        ask(page, payload)
    page.unroute_all()
    refuse_with(page, 500, title=payloads()[6], detail=payloads()[0], hint=payloads()[7])
    ask(page, payloads()[10])
    inner = page.locator("#turns")
    assert (
        inner.locator(
            "script, img, iframe, object, embed, style, link, video, audio, form, [onerror], [onload]"
        ).count()
        == 0
    )
    assert page.evaluate("shots") == 0


def test_a_document_of_payloads_is_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    text = "# Parental leave\n\n" + "\n\n".join(payloads())
    with served(tmp_path, {"leave.md": text, "leave.txt": text}) as hostile:
        context = browser.new_context()
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.add_init_script(WATCH)
        for name in ("leave.md", "leave.txt"):
            page.goto(hostile.url)
            page.click("#open-library")
            page.click(f".documents .place:has-text('{name}')")
            page.wait_for_selector("#viewer .prose")
            page.evaluate("document.querySelector('#viewer .prose').classList.add('under-test')")
            assert page.evaluate(FOUND, ALLOWED) == []
            assert "onerror=fired()" in page.locator("#viewer .prose").inner_text()
        page.wait_for_timeout(200)
        assert page.evaluate("shots") == 0
        assert [url for url in asked if not is_own(url, hostile)] == []
        assert EVIL not in "".join(asked)
        context.close()


class _Attributes(html.parser.HTMLParser):
    """All attributes and tags of a page, and text within scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.inline: list[str] = []
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.attributes.extend((tag, name, value or "") for name, value in attrs)

    def handle_data(self, data: str) -> None:
        if self._tag in {"script", "style"} and data.strip():
            self.inline.append(data)


def test_the_files_hold_no_inline_code_and_no_address_elsewhere() -> None:
    page = _Attributes()
    page.feed((STATIC / "index.html").read_text(encoding="utf-8"))
    assert page.inline == []
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), f"<{tag} {name}>"
        assert name != "style", f"<{tag} style>"
        if name in {"src", "href"}:
            assert re.fullmatch(r"/(static/[a-z.]+)?|#[a-z-]+", value), value
            assert not value.startswith("/static/") or (STATIC / value.removeprefix("/static/")).is_file(), (
                value
            )


def test_the_scripts_parse_no_html_and_run_no_text() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser"
        r"|\beval\(|new Function"
        r"|setAttribute\(.(style|on)|srcdoc|https?://(?!www\.w3\.org)[a-z]"
    )
    for file in [*STATIC.glob("*.js"), *STATIC.glob("*.css"), *STATIC.glob("*.svg")]:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            assert not forbidden.search(line), f"{file.name}:{number}: {line.strip()}"
        assert file.read_text(encoding="utf-8").count("\n") <= 250, f"{file.name} is too long"


def test_a_policy_forbids_what_the_page_does_not_need(page: Page) -> None:
    policy = page.evaluate("fetch('/').then(reply => reply.headers.get('content-security-policy'))")
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert (
        page.evaluate(
            """() => new Promise((resolve) => {
          addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
          const script = document.createElement('script');
          script.textContent = 'window.shots = 1';
          document.body.append(script);
          setTimeout(() => resolve('nothing was refused'), 2000);
        })"""
        )
        == "script-src-elem"
    )
