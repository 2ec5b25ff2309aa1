"""One e-mail (EML) -> its text; who, to whom and when become metadata. Attachments are only named."""

from __future__ import annotations

from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from crossrag.errors import LoadError

from .markup import main_text
from .metadata import checked_value
from .parsed import Parsed
from .repair import clean_text

if TYPE_CHECKING:
    from email.message import Message

_MOST_PARTS = 1_000


def parse_mail(data: bytes) -> Parsed:
    """The plain text of a message, or else its HTML as Markdown.

    Raises:
        LoadError: It is no message, or damaged.
    """
    from email import message_from_bytes, policy

    try:
        message = message_from_bytes(data, policy=policy.default)
        if not message.keys():
            raise LoadError("is no e-mail: it has no headers", hint="Save it again as EML")
        return _read(message)
    except (LoadError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a broken message raises whatever its damage leads to
        reason = clean_text(str(error))[:120] or type(error).__name__
        raise LoadError(f"is no e-mail that can be read: {reason}", hint="Save it again as EML") from None


def _read(message: Message) -> Parsed:
    text, is_html, attachments = _content(message)
    metadata: dict[str, Any] = {
        key: value
        for key, name in (("from", "From"), ("to", "To"), ("date", "Date"))
        if (value := _header(message, name)) and not checked_value(key, value)[1]
    }
    lines = [f"{key.capitalize()}: {value}" for key, value in metadata.items()]
    if attachments:
        lines.append(f"Attachments: {', '.join(attachments)}")
    body = main_text(clean_text(text)) if is_html else clean_text(text)
    return Parsed(
        text="\n\n".join(filter(str.strip, ("\n".join(lines), body))),
        title=_header(message, "Subject"),
        markdown=is_html,
        metadata=metadata,
    )


def _content(message: Message) -> tuple[str, bool, list[str]]:
    """Text, whether it is HTML, and the names of what is attached."""
    plain, html, attachments = [], [], []
    for count, part in enumerate(message.walk()):
        if count > _MOST_PARTS:
            raise LoadError(f"has more than {_MOST_PARTS} parts", hint="Save its parts one by one")
        if name := part.get_filename():
            attachments.append(" ".join(clean_text(name).split())[:200])
        elif part.get_content_type() == "text/plain":
            plain.append(_decoded(part))
        elif part.get_content_type() == "text/html":
            html.append(_decoded(part))
    text = "\n\n".join(plain)
    return (text, False, attachments) if text.strip() or not html else ("\n".join(html), True, attachments)


def _decoded(part: Message) -> str:
    try:
        content = part.get_content() if isinstance(part, EmailMessage) else ""
    except LookupError:  # an encoding that nobody knows
        payload = part.get_payload(decode=True)
        content = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
    return content if isinstance(content, str) else ""


def _header(message: Message, name: str) -> str:
    value = " ".join(clean_text(str(message.get(name) or "")).split())
    if name != "Date" or not value:
        return value
    try:
        return parsedate_to_datetime(value).isoformat()
    except ValueError:
        return value
