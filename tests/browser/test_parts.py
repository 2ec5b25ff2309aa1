"""The parts that know no page: Markdown with offsets, units of text, filters, events."""

from __future__ import annotations

import random
import re
import secrets
from typing import TYPE_CHECKING, Any

from crossrag.filters import parse

from .serving import CORPUS

if TYPE_CHECKING:
    from playwright.sync_api import Page

RENDER = """async ([text, marks]) => {
  const { renderProse } = await import('/static/prose.js');
  const place = document.createElement('div');
  place.append(...renderProse(text, { marks }));
  return place.innerHTML;
}"""


def rendered(page: Page, text: str, marks: list[dict[str, Any]] | None = None) -> str:
    made: str = page.evaluate(RENDER, [text, marks or []])
    return re.sub(r' (title|target|rel|referrerpolicy|tabindex|role|aria-label)="[^"]*"', "", made)


def test_markdown(page: Page) -> None:
    for text, expected in {
        "a **b** _c_ `d*e*` ~~f~~": "<p>a <strong>b</strong> <em>c</em> <code>d*e*</code> <del>f</del></p>",
        "snake_case_name and 2*3*4 * 5": "<p>snake_case_name and 2<em>3</em>4 * 5</p>",
        "***both***": "<p><strong><em>both</em></strong></p>",
        "# One\nTwo\n### Three": "<h3>One</h3><p>Two</p><h5>Three</h5>",
        "- a\n- b\n  - c\n- d": "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>",
        "3. c\n4. d": '<ol start="3"><li>c</li><li>d</li></ol>',
        "> a\n> b\n\nc": "<blockquote><p>a b</p></blockquote><p>c</p>",
        "```py\n<b>\n```": "<pre><code>&lt;b&gt;</code></pre>",
        "| a | b |\n|---|:-:|\n| 1 | 2 |": '<div class="wide"><table>'
        "<thead><tr><th>a</th><th>b</th></tr></thead>"
        "<tbody><tr><td>1</td><td>2</td></tr></tbody></table></div>",
        "[x](https://a.example/b) and https://c.example.": '<p><a href="https://a.example/b">x</a> and '
        '<a href="https://c.example/">https://c.example</a>.</p>',
        "![alt](https://a.example/p.png)": '<p><span class="image">Image: alt</span></p>',
        "a  \nb\\\nc": "<p>a  <br>b<br>c</p>",
        "---": "<hr>",
        "**open and \\*escaped\\*": "<p>**open and *escaped*</p>",
        "In\n1998. It rained": "<p>In 1998. It rained</p>",
    }.items():
        assert rendered(page, text) == expected, text


def test_no_text_is_slow(page: Page) -> None:
    hard = [
        "*a " * 20_000,
        "[" * 50_000,
        "`a``" * 10_000,
        "> " * 5_000,
        "- " * 5_000,
        "|a" * 20_000 + "\n" + "|-" * 20_000,
    ]
    hard += [
        "![" * 20_000,
        "<http://" * 10_000,
        "_a_" * 20_000,
        "**a" * 20_000,
        "http://" * 10_000,
        "\\" * 50_000,
        " " * 50_000,
    ]
    # Each of these took time by the square of its length once.
    hard += [
        "# a" + " " * 80_000 + "b",
        "[a](" + " " * 80_000 + "](b)",
        "a\n" * 80_000,
        "- a\n" + "\n" * 80_000 + "  b",
        "a|b\n-" + " " * 80_000 + "x|",
        "x ``` y\n" * 10_000 + "`",
        "`a ``b " * 12_000,
        "https://a.b/" + "." * 80_000 + "a",
    ]
    took: list[float] = page.evaluate(
        """async (texts) => {
          const { renderProse } = await import('/static/prose.js');
          return texts.map((text) => {
            const started = performance.now();
            renderProse(text);
            return performance.now() - started;
          });
        }""",
        hard,
    )
    assert max(took) < 4_000, took


def test_a_glance_shows_words_and_no_marks(page: Page) -> None:
    text = "# Travel\n\nTrips are *paid*.\n\n| Country | Daily |\n|:---|---:|\n| Norway | 65 euros |\n\na | b"
    seen = page.evaluate("text => import('/static/passages.js').then(module => module.glance(text))", text)
    assert seen == "Trips are paid. Country, Daily Norway, 65 euros a | b"


def test_two_hundred_ranges_are_marked_exactly(page: Page) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    chosen = random.Random(seed)  # noqa: S311 - a test's choice
    text = (
        "\n\n".join(CORPUS.values())
        + "\n\n| 🌻 a | b |\n|---|---|\n| c | *d* 🌻 |\n\n> - x `y` [z](https://a.example)\n"
    )
    ranges = [sorted(chosen.sample(range(len(text) + 1), 2)) for _ in range(200)]
    marked: list[list[str]] = page.evaluate(
        """async ([text, ranges]) => {
          const { renderPlain, renderProse } = await import('/static/prose.js');
          const { unitsOf } = await import('/static/offsets.js');
          const units = unitsOf(text);
          const within = (nodes) => {
            const place = document.createElement('div');
            place.append(...nodes.flat(9));
            return [...place.querySelectorAll('mark')].map((node) => node.textContent).join('');
          };
          return ranges.map(([start, end]) => {
            const marks = [{ start: units(start), end: units(end), className: 'quote' }];
            return [within(renderPlain({ text, start: 0 }, marks)), within(renderProse(text, { marks }))];
          });
        }""",
        [text, ranges],
    )
    for (start, end), (plain, prose) in zip(ranges, marked, strict=True):
        assert plain == text[start:end]
        assert is_within(prose, text[start:end]), (start, end)
        assert letters(prose) == letters(without_addresses(text, start, end)), (start, end)


def is_within(part: str, whole: str) -> bool:
    """Whether the characters of `part` are in `whole` in this order: only marks of Markdown are left out."""
    rest = iter(whole)
    return all(character in rest for character in part)


def letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum() or character == "🌻")


def without_addresses(text: str, start: int, end: int) -> str:
    """The range without the addresses of links, which are not shown."""
    hidden = [range(*match.span(1)) for match in re.finditer(r"\]\((.*?)\)", text)]
    return "".join(text[at] for at in range(start, end) if not any(at in each for each in hidden))


def test_filters_are_in_the_language_of_the_service(page: Page) -> None:
    page.click("#open-filters")
    rows = [
        ("source", "prefix", "handbook/"),
        ("year", "is", "2021"),
        ("year", "is", "2022"),
        ("team", "not", "blue"),
    ]
    rows += [
        ("date", "gte", "2024-01-01"),
        ("size", "lte", "3.5"),
        ("draft", "is", "true"),
        ("and", "is", "x"),
        ("a b", "is", "x"),
    ]
    for number, (key, comparison, value) in enumerate(rows):
        if number:
            page.click("text=Add a condition")
        row = page.locator(".filter-row").nth(number)
        row.locator("[aria-label=Field]").fill(key)
        row.locator("select").select_option(comparison)
        row.locator("[aria-label=Value]").fill(value)
    where = page.evaluate("import('/static/filters.js').then(module => module.currentFilter())")
    assert where == {
        "and": [
            {"source": {"prefix": "handbook/"}},
            {"not": {"team": "blue"}},
            {"date": {"gte": "2024-01-01"}},
            {"size": {"lte": 3.5}},
            {"or": [{"year": 2021}, {"year": "2021"}, {"year": 2022}, {"year": "2022"}]},
            {"or": [{"draft": True}, {"draft": "true"}]},
        ]
    }
    parse(where)
    assert page.locator("#filter-chips li").count() == 7
    assert page.locator("[aria-invalid=true]").count() == 2


def test_events_come_whole_however_they_are_cut(page: Page) -> None:
    stream = ': ping\n\nevent: delta\ndata: {"text": "🌻 a"}\n\nevent: done\ndata: {"x":\ndata: 1}\n\n'
    got = page.evaluate(
        """async (stream) => {
          const { eventsOf } = await import('/static/events.js');
          const bytes = new TextEncoder().encode(stream);
          const all = [];
          for (const size of [1, 2, 3, 7, 1000]) {
            const body = new ReadableStream({
              start(controller) {
                for (let at = 0; at < bytes.length; at += size) {
                  controller.enqueue(bytes.slice(at, at + size));
                }
                controller.close();
              },
            });
            const events = [];
            for await (const event of eventsOf(new Response(body))) events.push(event);
            all.push(events);
          }
          return all;
        }""",
        stream,
    )
    expected = [{"name": "delta", "data": {"text": "🌻 a"}}, {"name": "done", "data": {"x": 1}}]
    assert got == [expected] * 5
