"""Pairs to learn from whether evidence supports a claim: labelled ones, and ones made from passages by rule.

In: folders of JSON Lines. Out: `Pair`s. A made claim is a sentence of a passage, shortened, or changed so
that the passage does not say it any more.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrag.sentences import split_sentences

LABELLED = ("expertqa", "summedits", "begin", "wice", "faithdial-audit")
SOURCES = {
    "squad": 4,
    "squadshifts-newwiki": 2,
    "squadshifts-amazon": 1,
    "medquad": 3,
    "lfrqa": 3,
    "boolq": 2,
    "nq-oracle": 1,
    "selqa": 0,
}
"""Sets of passages that claims are made from, and their shares."""
_NUMBER = re.compile(r"\b\d+(?:[.,]\d+)*\b")
_NAME = re.compile(
    r"\b[A-Z][a-z]+(?: (?:[A-Z][a-z]+|of|the))*(?: [A-Z][a-z]+)\b|(?<=[a-z,] )[A-Z][a-z]{2,}\b"
)
_ASIDE = re.compile(r" \([^()]{3,80}\)|, (?:which|who|where)\b[^,.;]{5,90}(?=[,.])")
_LEAD = re.compile(
    r"^(?:However|Moreover|Therefore|Additionally|In fact|For example|Also|In [^,]{3,40}|As [^,]{3,40}), "
)
_AUXILIARY = re.compile(r"\b(is|are|was|were|can|could|will|would|should|may|has been|have been)\b(?! not)")
_VERB = re.compile(
    r"\b(?:is|are|was|were|can|could|will|would|may|has|have|had|do|does|did|[a-z]{3,}ed|[a-z]{3,}s)\b"
)
_OPPOSITES = """
increase/decrease increased/decreased increases/decreases increasing/decreasing more/less
higher/lower high/low before/after first/last largest/smallest larger/smaller large/small
many/few most/least early/late earlier/later north/south east/west northern/southern
eastern/western best/worst better/worse old/new older/younger always/never all/some
always/sometimes begins/ends began/ended start/end started/ended positive/negative common/rare
easy/difficult good/bad long/short longer/shorter strong/weak rich/poor men/women male/female
father/mother son/daughter he/she his/her win/lose won/lost inside/outside above/below
accept/reject accepted/rejected allow/forbid allowed/forbidden cause/prevent causes/prevents
caused/prevented fast/slow faster/slower hot/cold internal/external major/minor maximum/minimum
private/public safe/dangerous success/failure successful/unsuccessful support/oppose
supported/opposed true/false buy/sell bought/sold
"""
_PAIRS = [tuple(pair.split("/")) for pair in _OPPOSITES.split()]
_OPPOSITE = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
_DETAILS = (
    "in {number}",
    "because of {name}",
    "according to {name}",
    "by about {number} percent",
    "for the first time",
    "together with {name}",
    "as the only one of its kind",
    "after {number} years",
    "which {name} had asked for",
    "and is the largest in the world",
    "despite the objections of {name}",
    "in order to save money",
)

_LOOSER = (
    (" in order to ", " to "),
    (" however,", ""),
    (" is not ", " isn't "),
    (" cannot ", " can't "),
    (" approximately ", " about "),
    (" due to ", " because of "),
    (" such as ", " like "),
    (" began ", " started "),
    (" large ", " big "),
    (" purchase ", " buy "),
    (" frequently ", " often "),
    (" various ", " several "),
    (" located in ", " in "),
    (" also ", " "),
    (" people ", " persons "),
    (" obtain ", " get "),
    (" movie", " film"),
    (" assist ", " help "),
    (" children ", " kids "),
    (" physician", " doctor"),
    (" difficult ", " hard "),
    (" therefore ", " so "),
    (" many ", " numerous "),
    (" usually ", " normally "),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A claim, what it is held against, and whether that supports it."""

    collection: str
    claim: str
    evidence: str
    supported: bool


def labelled(folder: Path, name: str) -> list[Pair]:
    """Pairs that people have labelled; where the evidence is bare addresses nobody can tell, so these go."""
    rows = _lines(folder / f"{name}.jsonl.gz")
    return [
        Pair(name, row["claim"], row["context"], row["label"] == 1)
        for row in rows
        if row["label"] is not None and len(re.sub(r"\S*(?:://|www\.)\S*", " ", row["context"]).split()) >= 8
    ]


def made(merged: Path, count: int, *, seed: int = 0) -> list[Pair]:
    """`count` pairs from the passages of a BEIR folder, half of them supported, in an order by `seed`."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    by_set: dict[str, list[tuple[str, list[str]]]] = {name: [] for name in SOURCES}
    for row in _lines(merged / "corpus.jsonl.gz"):
        if row["set"] in by_set:
            by_set[row["set"]].append((str(row.get("title", "")), _sentences(row["text"])))
    pairs: list[Pair] = []
    shares = list(SOURCES.values())
    while len(pairs) < count:
        name = chance.choices(list(SOURCES), shares)[0]
        passages = by_set[name]
        number = chance.randrange(len(passages))
        near = passages[number + 1 if number + 1 < len(passages) else number - 1][1]
        if len(passages[number][1]) >= 2 and near:
            far = chance.choice(passages)[1] or near
            pairs += _of_passage(name, passages[number][1], near, far, chance)
    return pairs[:count]


@dataclass(frozen=True, slots=True)
class _Given:
    """A claim to change, its passage, sentences of another one, and chance."""

    claim: str
    passage: str
    far: Sequence[str]
    chance: random.Random


def _of_passage(
    name: str, sentences: Sequence[str], near: Sequence[str], far: Sequence[str], chance: random.Random
) -> Iterator[Pair]:
    """One supported and one unsupported pair, mostly of the same sentence."""
    whole = " ".join(sentences)
    position = chance.randrange(len(sentences))
    sentence = sentences[position]
    claim = _reworded(sentence, chance)
    if chance.random() < 0.2 and position + 1 < len(sentences):
        claim = f"{claim.rstrip('.')}, and {_lowered(_reworded(sentences[position + 1], chance))}"
    yield Pair(f"made-{name}", claim, whole, supported=True)
    roll = chance.random()
    if roll < 0.15:
        rest = " ".join([*sentences[:position], *sentences[position + 1 :], *near[:2]])
        yield Pair(f"made-{name}", claim, rest, supported=False)
    elif roll < 0.27:
        yield Pair(f"made-{name}", _reworded(chance.choice(near), chance), whole, supported=False)
    elif roll < 0.37:
        mixed = f"{claim.rstrip('.')}, and {_lowered(_reworded(chance.choice(near), chance))}"
        yield Pair(f"made-{name}", mixed, whole, supported=False)
    elif changed := _changed(claim, whole, far, chance):
        yield Pair(f"made-{name}", changed, whole, supported=False)


def _reworded(sentence: str, chance: random.Random) -> str:
    """Shorter, but nothing that the sentence does not say."""
    text = sentence
    if chance.random() < 0.6:
        text = _ASIDE.sub("", text)
    if chance.random() < 0.6 and (lead := _LEAD.match(text)):
        text = text[lead.end() :]
        text = text[:1].upper() + text[1:]
    if chance.random() < 0.4 and len(text.split()) > 22:
        # The end of a long sentence goes where a clause ends.
        head, mark, _ = text.rpartition(", ")
        if mark and len(head.split()) > 9 and _VERB.search(head):
            text = head + "."
    if chance.random() < 0.5:
        text = _loosened(text)
    return text


def _loosened(text: str) -> str:
    for one, other in _LOOSER:
        text = text.replace(one, other)
    return text


def _changed(claim: str, passage: str, far: Sequence[str], chance: random.Random) -> str:
    """The claim with one thing in it that the passage does not say; empty where no way applies."""
    ways: list[Callable[[_Given], str]]
    ways = [_number, _number, _name, _name, _negation, _opposite, _opposite, _roles, _detail, _word, _word]
    chance.shuffle(ways)
    for way in ways:
        changed = way(_Given(claim, passage, far, chance))
        if changed and changed.lower() != claim.lower() and changed.lower() not in passage.lower():
            return changed
    return ""


def _number(given: _Given) -> str:
    found = list(_NUMBER.finditer(given.claim))
    if not found:
        return ""
    match = given.chance.choice(found)
    others = [other for other in _NUMBER.findall(given.passage) if other != match[0]]
    digits = match[0]
    place = given.chance.choice([n for n, digit in enumerate(digits) if digit.isdigit()])
    other = str((int(digits[place]) + given.chance.randint(1, 8)) % 10)
    fresh = digits[:place] + other + digits[place + 1 :]
    return _put(
        given.claim, match, given.chance.choice(others) if others and given.chance.random() < 0.5 else fresh
    )


def _name(given: _Given) -> str:
    found = list(_NAME.finditer(given.claim))
    own = {match[0] for match in _NAME.finditer(given.claim)}
    others = [match[0] for match in _NAME.finditer(given.passage) if match[0] not in own]
    others = others if others and given.chance.random() < 0.7 else _NAME.findall(" ".join(given.far))
    return (
        _put(given.claim, given.chance.choice(found), given.chance.choice(others)) if found and others else ""
    )


def _negation(given: _Given) -> str:
    if re.search(r"\bnot\b|n't\b", given.claim):
        return re.sub(r"\b(?:do|does|did) not | not\b|n't\b", "", given.claim, count=1)
    match = _AUXILIARY.search(given.claim)
    return _put(given.claim, match, f"{match[0]} not") if match else ""


def _opposite(given: _Given) -> str:
    found = [match for match in re.finditer(r"[a-z]+", given.claim) if match[0] in _OPPOSITE]
    if not found:
        return ""
    match = given.chance.choice(found)
    return _put(given.claim, match, _OPPOSITE[match[0]])


def _roles(given: _Given) -> str:
    found = [match for match in _NAME.finditer(given.claim) if match[0]]
    if len({match[0] for match in found}) < 2:
        return ""
    one, other = found[0], found[-1]
    if one[0] in other[0] or other[0] in one[0]:
        return ""
    return (
        given.claim[: one.start()]
        + other[0]
        + given.claim[one.end() : other.start()]
        + one[0]
        + given.claim[other.end() :]
    )


def _detail(given: _Given) -> str:
    names = _NAME.findall(" ".join(given.far)) or ["the government"]
    detail = given.chance.choice(_DETAILS).format(
        number=given.chance.randint(2, 2020), name=given.chance.choice(names)
    )
    return f"{given.claim.rstrip('. ')} {detail}."


def _word(given: _Given) -> str:
    """A long word in lower case becomes one of another text, with the same ending."""
    found = list(re.finditer(r"\b[a-z]{5,}\b", given.claim))
    given.chance.shuffle(found)
    others = [word for word in re.findall(r"\b[a-z]{5,}\b", " ".join(given.far)) if word not in given.passage]
    for match in found:
        same = [word for word in others if word[-2:] == match[0][-2:] and word[:4] != match[0][:4]]
        if same:
            return _put(given.claim, match, given.chance.choice(same))
    return ""


def _put(text: str, match: re.Match[str], new: str) -> str:
    return text[: match.start()] + new + text[match.end() :]


def _lowered(text: str) -> str:
    first = text.split(" ", 1)[0]
    return (
        text[:1].lower() + text[1:]
        if first in {"The", "It", "This", "He", "She", "They", "In", "A", "An"}
        else text
    )


def _sentences(text: str) -> list[str]:
    found = (text[one.start : one.end] for one in split_sentences(str(text)) if not one.heading)
    return [" ".join(each.split()) for each in found if 6 <= len(each.split()) <= 60]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)
