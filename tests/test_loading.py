"""Files of every type, whole and broken, in every encoding: a clean Document or a LoadError, nothing else."""

from __future__ import annotations

import io
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossrag.errors import LoadError
from crossrag.loading import SUPPORTED_SUFFIXES, clean_text, find_files, load, load_bytes
from crossrag.types import Document

FRENCH = "Le café est fermé. Où êtes-vous allés à la fête ?\n"
JAPANESE = "これは日本語のテキストです。文字コードの判定を試します。\n"


def parse(data: bytes | str, suffix: str = ".txt") -> Document:
    raw = data.encode() if isinstance(data, str) else data
    return load_bytes(raw, suffix=suffix, document_id="id", source="a" + suffix)


def parsed_or_refused(data: bytes, suffix: str) -> Document | LoadError:
    try:
        return parse(data, suffix)
    except LoadError as error:
        return error


def pdf_of(*pages: str, title: str = "", password: str | None = None, algorithm: str = "RC4-128") -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(_plain_pdf(pages))))
    if title:
        writer.add_metadata({"/Title": title})
    if password is not None:
        writer.encrypt(password, "owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _plain_pdf(pages: tuple[str, ...]) -> bytes:
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        drawing = b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % text.encode()
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
            b" /Contents %d 0 R >>" % (5 + 2 * number)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing))
    out, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    start = out.rindex(b"xref\n0")
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


# --- files ------------------------------------------------------------------------------------------------


def test_a_file_is_read_with_its_identity_and_source(tmp_path: Path) -> None:
    path = tmp_path / "Notes.TXT"
    path.write_text("Hello.\n", encoding="utf-8")
    assert load(path, document_id="7", source="notes") == Document(id="7", source="notes", text="Hello.\n")


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"^none\.md cannot be read: No such file.*Check"):
        load(tmp_path / "none.md", document_id="x", source="none.md")
    with pytest.raises(LoadError, match="cannot be read: No such file"):
        find_files(tmp_path / "none")


def test_an_unknown_type_names_the_known_ones() -> None:
    with pytest.raises(LoadError, match=r"no known type\. Did you mean '\.html'\? Choices: .*\.pdf"):
        parse("x", ".htmll")
    assert {".txt", ".md", ".html", ".pdf", ".rst"} <= set(SUPPORTED_SUFFIXES)


# --- encodings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", FRENCH),
        ("utf-8-sig", FRENCH),
        ("utf-16", FRENCH),
        ("utf-32", JAPANESE),
        ("latin-1", FRENCH),
        ("latin-1", "naïve"),
        ("cp1252", "\u201cSmart\u201d \u2013 it\u2019s 5 €"),
        ("cp1250", "Zażółć gęślą jaźń. To jest zdanie po polsku."),
        ("cp1251", "Привет, мир. Это проверка кодировки текста."),
        ("koi8-r", "Привет, мир. Это проверка кодировки текста."),
        ("shift_jis", JAPANESE),
        ("euc_jp", JAPANESE),
        ("iso2022_jp", JAPANESE),
        ("gb18030", "这是一个中文文本文件。用来测试编码。"),
        ("euc_kr", "안녕하세요 한국어 문서입니다."),
    ],
)
def test_encodings_are_recognised(encoding: str, text: str) -> None:
    assert parse(text.encode(encoding)).text == text


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html"])
@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 4,
        b"\x89 no picture" + b"\x00\x01\x02\xff" * 100,
        "words".encode("utf-16-le") * 9,
    ],
)
def test_binary_content_is_refused(suffix: str, data: bytes) -> None:
    with pytest.raises(LoadError, match=r"is binary, not text\. Save it as UTF-8"):
        parse(data, suffix)


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<meta charset="koi8-r">', "koi8-r"),
        ("<meta http-equiv='Content-Type' content='text/html; charset=windows-1255'>", "cp1255"),
        ('<?xml version="1.0" encoding="iso-8859-7"?>', "iso8859-7"),
        ("<meta charset=iso-8859-1>", "cp1252"),
        ("<meta charset=iso-8859-1>", "utf-8"),
        ("<meta charset=rot13>", "cp1252"),
    ],
)
def test_html_is_read_as_it_declares_unless_it_is_utf8(head: str, encoding: str) -> None:
    words = {"koi8-r": "мир", "cp1255": "שלום", "iso8859-7": "Καλημέρα"}.get(encoding, "“piñata” à gogo")
    assert parse(f"{head}<p>{words}</p>".encode(encoding), ".html").text == words


# --- repair -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a\r\nb\rc\fd\x0be\u2028f\x85g", "a\nb\nc\nd\ne\nf\ng"),
        ("nul\x00 bell\x07 c1\x9b tab\t", "nul bell c1 tab\t"),
        ("lone \ud83d surrogate", "lone \ufffd surrogate"),
        (
            "zero\u200bwidth\u2060\ufeff soft\u00adhyphen, hyphen\u00ad\nated",
            "zerowidth softhyphen, hyphenated",
        ),
        ("\u0646\u200c\u0627 \U0001f469\u200d\U0001f4bb", "\u0646\u200c\u0627 \U0001f469\u200d\U0001f4bb"),
        ("e\u0301 A\u030a", "\u00e9 \u00c5"),
        ("\x1b[1;31mERROR\x1b[0m", "ERROR"),
        ("see\U000e0049\U000e0067 this", "see this"),
        ("a" + "\u0301\u0323" * 200_000, "\u1ea1" + "\u0301" * 15),
    ],
)
def test_repair(dirty: str, clean: str) -> None:
    if len(dirty) > 1000:  # a flood of marks, which to sort whole would take minutes
        assert unicodedata.is_normalized("NFC", clean_text(dirty))
        assert len(clean_text(dirty)) <= 31
    else:
        assert clean_text(dirty) == clean


@given(st.text(st.characters(exclude_categories=[]), max_size=200))
@example("\u0344" * 40)
@example("\r\u200b\n\u00ad\u00ad\n\x1b[\x1b[0m31m")
def test_repair_is_idempotent_and_complete(text: str) -> None:
    clean = clean_text(text)
    assert clean_text(clean) == clean
    clean.encode("utf-8")
    assert all(character in "\n\t" or unicodedata.category(character) != "Cc" for character in clean)


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html"])
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(
            st.sampled_from(
                ["<main>", "<p>", "</p>", "<table><tr><td>", "&#0;", "&#xd800;", "<title>", "---\n"]
            )
            | st.sampled_from(
                ["title: x\n", "# ", "```\n", "<!--", "\x00", "\u0301", "<meta charset=utf-7>", "é"]
            )
        ).map(lambda parts: "".join(parts).encode()),
    )
)
def test_any_bytes_give_clean_text_or_a_load_error(suffix: str, data: bytes) -> None:
    outcome = parsed_or_refused(data, suffix)
    if isinstance(outcome, LoadError):
        assert outcome.hint
        return
    for text in (outcome.text, outcome.title):
        text.encode("utf-8")
        assert clean_text(text) == text


# --- text and Markdown ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"  \n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("suffix", [".txt", ".md", ".html"])
def test_a_file_without_text_is_an_empty_document(suffix: str, data: bytes) -> None:
    assert parse(data, suffix).text.strip() == ""


def test_plain_text_has_no_title_and_no_headings() -> None:
    document = parse("# One\ntext", ".txt")
    assert (document.title, document.markdown, document.text) == ("", False, "# One\ntext")


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        ("# Guide `x` #\n\ntext", "Guide x", "# Guide `x` #\n\ntext"),
        ("intro\n\n# C#\n", "C#", "intro\n\n# C#\n"),
        ("Guide\n=====\ntext", "Guide", "Guide\n=====\ntext"),
        ("```\n# code\n```\n# Real\n", "Real", "```\n# code\n```\n# Real\n"),
        ("## Second level\n", "", "## Second level\n"),
        ("---\ntitle: 'A: b'\ntags:\n  - x\n---\n# C\n", "A: b", "# C\n"),
        ("---\ndate: 2026\n...\n# C\n", "C", "# C\n"),
        ("---\nProse under a rule.\n---\n", "", "---\nProse under a rule.\n---\n"),
        ("---\ntitle: never closed\n\n# C\n", "C", "---\ntitle: never closed\n\n# C\n"),
    ],
)
def test_title_of_markdown(text: str, title: str, body: str) -> None:
    document = parse(text, ".md")
    assert (document.title, document.text, document.markdown) == (title, body, True)


def test_an_endless_title_is_cut() -> None:
    assert len(parse("# " + "word " * 1000, ".md").title) <= 200


# --- HTML -------------------------------------------------------------------------------------------------

PAGE = """<!doctype html><html><head><title>Leave &amp; absence
  policy</title><style>p{}</style><script>var a</script></head><body>
<header><h1>Site</h1></header><nav><a href="/">Home</a></nav>
<article><header><h1>Leave</h1></header><p>See <a href="http://e.test/x">the <b>form</b></a>.
<img src="http://e.test/a.png" alt="picture"> snake_case 2 * 3</p><h2>Sick leave</h2>
<pre><code># not a heading</code></pre><ul><li>one</ul><table><tr><th>A<th>B<tr><td>1<td>2</table></article>
<aside>Related</aside><footer>Imprint</footer></body></html>"""


def test_html_gives_the_main_text_as_markdown() -> None:
    document = parse(PAGE, ".html")
    assert document.title == "Leave & absence policy"
    assert document.markdown
    assert document.text == (
        "# Leave\n\nSee the **form**. snake_case 2 * 3\n\n## Sick leave\n\n```\n# not a heading\n```\n\n"
        "- one\n\n| A | B |\n| --- | --- |\n| 1 | 2 |"
    )


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<nav>n</nav><main><aside>note</aside><p>x</p><nav>m</nav></main><p>frame</p>", "note\n\nx"),
        ("<main></main><p>outside</p>", "outside"),
        ("<body><header><h1>Only</h1><p>text</p></header></body>", "# Only\n\ntext"),
        ("<aside>all there is</aside>", "all there is"),
        ("<form action=/><p>the whole page</p><button>Send</button></form>", "the whole page"),
        ("no markup at all", "no markup at all"),
        ("<p>open <b>tags", "open **tags**"),
        ("<p>zero&#8203;width&nbsp;&shy;entity&#0;</p>", "zerowidth entity\ufffd"),
        ("<iframe src=http://e.test></iframe><video src=http://e.test></video>x", "x"),
    ],
)
def test_no_page_comes_out_empty_or_with_its_frame(html: str, text: str) -> None:
    assert parse(html, ".htm").text == text


def test_title_of_a_page_without_one_is_its_heading() -> None:
    assert parse("<h2>a</h2><h1>The heading</h1>", ".xhtml").title == "The heading"


# --- PDF --------------------------------------------------------------------------------------------------


def test_pages_begin_where_page_starts_says() -> None:
    document = parse(pdf_of("First page", "", "Third page", title="Handbook"), ".pdf")
    assert document.text == "First page\n\n\n\nThird page"
    assert document.page_starts == (0, 12, 14)
    assert document.text[14:] == "Third page"
    assert document.title == "Handbook"


def test_a_file_name_is_no_title() -> None:
    assert parse(pdf_of("x", title="Microsoft Word - draft.docx"), ".pdf").title == ""
    assert parse(pdf_of("x", title="scan0001.pdf"), ".pdf").title == ""


def test_a_pdf_without_text_is_an_empty_document() -> None:
    assert parse(pdf_of("", ""), ".pdf") == Document(id="id", source="a.pdf", text="")


def test_an_encrypted_pdf_says_so_unless_it_opens_without_a_password() -> None:
    with pytest.raises(LoadError, match=r"encrypted with a password\. Save a copy"):
        parse(pdf_of("secret", password="hunter2"), ".pdf")
    assert parse(pdf_of("open", password=""), ".pdf").text == "open"


def test_a_missing_decryption_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import pypdf
    from pypdf.errors import DependencyError

    def refuse(_: object) -> None:
        raise DependencyError("cryptography>=3.1 is required for AES algorithm")

    monkeypatch.setattr(pypdf, "PdfReader", refuse)
    with pytest.raises(LoadError, match=r"AES\. Install the package `cryptography`"):
        parse(b"%PDF-", ".pdf")


@pytest.mark.parametrize("keep", [0, 5, 60, 400, -40, -200])
def test_a_truncated_pdf_is_a_load_error_or_still_readable(
    keep: int, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = parsed_or_refused(_plain_pdf(("First page", "Second page"))[:keep], ".pdf")
    told = outcome.message if isinstance(outcome, LoadError) else outcome.text
    assert "is no PDF that can be read" in told or "First page" in told
    assert capfd.readouterr() == ("", "")


@given(st.integers(20, 900), st.binary(min_size=1, max_size=8))
def test_a_damaged_pdf_raises_nothing_of_pypdf(position: int, damage: bytes) -> None:
    whole = _plain_pdf(("First page", "Second page"))
    outcome = parsed_or_refused(whole[:position] + damage + whole[position + len(damage) :], ".pdf")
    assert isinstance(outcome, Document) or outcome.hint


def test_the_module_loads_no_parser() -> None:
    heavy = "{'pypdf', 'html_to_markdown', 'charset_normalizer'}"
    code = f"import sys, crossrag.loading; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
