"""Question -> other spellings of its identifiers, versions and acronyms. Pure; knows nothing of an index."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_TOKEN = re.compile(r"[\w./#+-]*\w")
_CAMEL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_VERSION = re.compile(r"v?(\d+(?:\.\d+)+)$", re.IGNORECASE)
_ACRONYM = r"[A-Z][A-Za-z0-9&/-]{1,9}"
_DEFINED = re.compile(rf"((?:[\w/-]+[ \t\n]+){{1,8}})\(({_ACRONYM})\)")
_WORD = re.compile(r"\w+")
_MOST = 12
_LONGEST = 200
"""Characters before a bracket in which a long form is looked for."""


def other_spellings(question: str, passages: Sequence[str]) -> list[str]:
    """Other ways to write what stands in the question, without repetition, at most 12.

    `getUserName`, `get_user_name`, `get-user-name` are read as their words, and hyphened words are joined,
    too; `v2.10.3` is also `2.10.3` and `2.10`. An acronym and its long form stand for each other where a
    passage introduces it, as in `pulmonary embolism (PE)`.
    """
    found: dict[str, None] = {}
    for token in _TOKEN.findall(question):
        found |= dict.fromkeys(_of_token(token))
    found |= dict.fromkeys(_of_acronyms(question, passages))
    written = {token.casefold() for token in question.split()}
    return [one for one in found if one.casefold() not in written][:_MOST]


def _of_token(token: str) -> Iterator[str]:
    if version := _VERSION.match(token):
        yield version[1]
        if version[1].count(".") > 1:
            yield version[1].rpartition(".")[0]
        return
    if "//" in token:
        return
    parts = [part for piece in re.split(r"[_\-./]", token) for part in _CAMEL.findall(piece)]
    if len(parts) < 2 or (len(parts) == 2 and token.istitle()):
        return
    yield " ".join(part if part.isupper() else part.lower() for part in parts)
    if re.search(r"[_-]", token):
        yield re.sub(r"[_-]", "", token)


def _of_acronyms(question: str, passages: Sequence[str]) -> Iterator[str]:
    """Schwartz and Hearst (2003), "A simple algorithm for identifying abbreviation definitions"."""
    folded = _folded(question)
    written = set(re.findall(rf"\b{_ACRONYM}\b", question))
    for passage in passages:
        for before, acronym in _DEFINED.findall(passage):
            long = _long_form(before[-_LONGEST:], acronym)
            if long is None:
                continue
            if acronym in written or (acronym.isupper() and _folded(acronym) in folded):
                yield long
            elif _folded(long) in folded:
                yield acronym


def _folded(text: str) -> str:
    """Its words between single spaces, to look for whole words in."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _long_form(before: str, acronym: str) -> str | None:
    """The shortest run of words before the bracket that spells the acronym, read backwards."""
    letters = [letter for letter in acronym.casefold() if letter.isalnum()]
    text = " ".join(before.split())
    folded = text.casefold()
    place = len(folded)
    for position, letter in reversed(list(enumerate(letters))):
        place -= 1
        while place >= 0 and not (
            folded[place] == letter and (position > 0 or place == 0 or not folded[place - 1].isalnum())
        ):
            place -= 1
        if place < 0:
            return None
    long = text[place:]
    few = min(len(letters) + 5, len(letters) * 2)
    return long if 1 < len(long.split()) <= few or len(long) > 2 * len(acronym) else None
