"""Pictures of texts: read in the parsing process, within its limits and without a network; or left out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossrag import LoadError, loading
from crossrag.loading import pictures

LINES = ("A backup is written every night at two.", "To restore it, stop the service first.")


def drawn(*lines: str, size: tuple[int, int] = (900, 260)) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", size, "white")
    font = ImageFont.load_default(size=36)
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((30, 30 + 90 * number), line, fill="black", font=font)
    return picture


def encoded(picture: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def loader() -> Iterator[loading.Loader]:
    with loading.Loader(workers=1) as made:
        yield made


def read(loader: loading.Loader, path: Path) -> Any:
    return loader.load(path, document_id=path.name, source=path.name)


def test_lines_of_a_picture_are_read_where_nothing_can_be_fetched(
    loader: loading.Loader, tmp_path: Path
) -> None:
    (tmp_path / "page.png").write_bytes(encoded(drawn(*LINES), "PNG"))
    found = read(loader, tmp_path / "page.png")
    assert found.text == "\n".join(LINES)
    assert found.page_starts == ()
    assert "may have been misread" in found.notices[0]
    (tmp_path / "empty.jpeg").write_bytes(encoded(drawn(), "JPEG"))
    blank = read(loader, tmp_path / "empty.jpeg")
    assert (blank.text, blank.notices) == ("", ())


def test_pages_of_a_tiff_are_pages(loader: loading.Loader, tmp_path: Path) -> None:
    first, second = (drawn(line, size=(900, 130)) for line in LINES)
    (tmp_path / "scan.tif").write_bytes(encoded(first, "TIFF", save_all=True, append_images=[second]))
    found = read(loader, tmp_path / "scan.tif")
    assert found.text == "\n\n".join(LINES)
    assert [found.text[start:][:4] for start in found.page_starts] == ["A ba", "To r"]


def bomb() -> bytes:
    """A picture of 90 million pixels in a few kilobytes."""
    from PIL import Image

    return encoded(Image.new("1", (10_000, 9_000)), "PNG")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("cut.png", lambda: encoded(drawn(*LINES), "PNG")[:900], "no picture that can be read"),
        ("noise.jpg", lambda: b"\xff\xd8\xff" + bytes(range(256)) * 20, "no picture that can be read"),
        ("bomb.png", bomb, "10000 x 9000 pixels"),
        ("photo.pdf", lambda: encoded(drawn(), "PNG"), "is a PNG picture by its first bytes"),
        ("photo.jpg", lambda: encoded(drawn(), "PNG"), r"suffix is \.jpg"),
    ],
)
def test_hostile_pictures_fail_with_a_reason(
    loader: loading.Loader, tmp_path: Path, name: str, data: Any, reason: str
) -> None:
    (tmp_path / name).write_bytes(data())
    with pytest.raises(LoadError, match=reason):
        read(loader, tmp_path / name)


def test_without_the_extra_a_picture_is_left_out_and_the_extra_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.png").write_bytes(b"")
    (tmp_path / "text.txt").write_text("text")
    assert loading.find_files(tmp_path).known == (tmp_path / "page.png", tmp_path / "text.txt")
    monkeypatch.setattr(pictures, "_is_installed", lambda: False)
    found = loading.find_files(tmp_path)
    assert (found.known, found.unknown) == ((tmp_path / "text.txt",), (tmp_path / "page.png",))
    assert "crossrag[ocr]" in loading.reason_against(".PNG")


def test_a_model_that_is_not_there_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pictures._MODELS, "Rec", "another.onnx")
    with pytest.raises(LoadError, match=r"needs another\.onnx"):
        pictures._engine.__wrapped__()
