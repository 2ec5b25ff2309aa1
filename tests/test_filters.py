"""The filter language is closed: what it says, what it refuses, and that nothing else gets through."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from crossrag import UsageError, filters
from crossrag.filters import And, AnyOf, DateRange, Equals, Not, Or, Prefix, Range
from crossrag.testing import HashedEmbedder, MemoryStore

SEED = 20260102


@pytest.mark.parametrize(
    ("where", "tree"),
    [
        (None, None),
        ({}, None),
        ({"team": "blue"}, Equals("team", "blue")),
        ({"team.name": 3}, Equals("team.name", 3)),
        ({"team": ["a", "b"]}, AnyOf("team", ("a", "b"))),
        ({"draft": True, "year": 2}, And((Equals("draft", value=True), Equals("year", 2)))),
        ({"year": {"gte": 2020, "lt": 2024}}, Range(key="year", gte=2020.0, lt=2024.0)),
        ({"source": {"prefix": "a/"}}, Prefix("source", "a/")),
        ({"not": {"team": "a"}}, Not(Equals("team", "a"))),
        ({"or": [{"a": 1}, {"b": 2, "c": 3}]}, Or((Equals("a", 1), And((Equals("b", 2), Equals("c", 3)))))),
    ],
)
def test_what_is_said_is_understood(where: dict[str, Any] | None, tree: object) -> None:
    assert filters.parse(where) == tree


def test_dates_are_moments_in_utc() -> None:
    tree = filters.parse({"date": {"gt": "2024-01-31", "lte": "2024-02-01T01:30:00+02:00"}})
    assert tree == DateRange(
        key="date", gt=datetime(2024, 1, 31, tzinfo=UTC), lte=datetime(2024, 1, 31, 23, 30, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"year": {"gt3": 1}}, "Did you mean 'gt'"),
        ({"year": {"$gte": 1}}, "Did you mean 'gte'"),
        ({"ands": [{"a": 1}]}, "Did you mean 'and'"),
        ({"a; DROP": 1}, "filter key"),
        ({"": 1}, "filter key"),
        ({"a..b": 1}, "filter key"),
        ({7: 1}, "filter key"),
        ({"a": None}, "not None"),
        ({"a": b"x"}, "takes text"),
        ({"a": []}, "1 to 1000 alternatives"),
        ({"a": ["x"] * 1001}, "1 to 1000 alternatives"),
        ({"a": ["x", 1]}, "all text or all numbers"),
        ({"a": [True, False]}, "all text or all numbers"),
        ({"a": {}}, "no operator"),
        ({"a": {"gte": 1, "lt": "2024-01-01"}}, "all numbers or all dates"),
        ({"a": {"gte": True}}, "all numbers or all dates"),
        ({"a": {"gte": "yesterday"}}, "is no date"),
        ({"a": {"gte": "2023-02-29"}}, "is no date"),
        ({"a": {"gte": "0001-01-01T00:00:00+23:00"}}, "is no date"),
        ({"a": {"prefix": ""}}, "prefix of 'a'"),
        ({"a": {"prefix": "x", "gte": 1}}, "stand alone"),
        ({"a": float("nan")}, "stored exactly"),
        ({"a": 10**400}, "stored exactly"),
        ({"a": "x" * 5000}, "longer than 4096"),
        ({"a": "\udcff"}, "Unicode"),
        ({"or": []}, "list of filters"),
        ({"or": {"a": 1}}, "list of filters"),
        ({"and": [{}]}, "empty"),
        ({"not": [{"a": 1}]}, "mapping"),
        ({"and": [{"a": 1}] * 1001}, "more than 1000 conditions"),
    ],
)
def test_what_is_not_of_the_language_is_refused(where: dict[Any, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        filters.parse(where)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 400


def test_deep_nesting_is_refused() -> None:
    where: dict[str, Any] = {"a": 1}
    for _ in range(5000):
        where = {"not": where}
    with pytest.raises(UsageError, match="nested"):
        filters.parse(where)
    with pytest.raises(UsageError, match="no JSON"):
        filters.parse_json('{"not":' * 100_000)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', '{"a": NaN}', "null"])
def test_json_that_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        filters.parse_json(text)


def test_nothing_random_gets_through_unparsed() -> None:
    chance = random.Random(SEED)  # noqa: S311 - tests, not secrets
    print(f"seed {SEED}")
    store = MemoryStore()
    question = HashedEmbedder().embed_query("x")
    outcomes = {"taken": 0, "refused": 0}
    for _ in range(5000):
        where = _anything(chance, 0)
        try:
            filters.parse_json(json.dumps(where))
            store.search(question, None, limit=1, where=where)
            outcomes["taken"] += 1
        except UsageError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 250, outcomes


def _anything(chance: random.Random, depth: int) -> Any:
    names = [
        "team",
        "year",
        "and",
        "or",
        "not",
        "gte",
        "lt",
        "prefix",
        "$ne",
        "a b",
        "metadata.tenant",
        "tenant",
    ]
    scalars = [1, -2.5, True, None, "x", "", "2024-01-01", "' OR 1=1", 10**30, "\x00"]
    kind = chance.random()
    if depth == 0 or (depth < 5 and kind < 0.35):
        return {chance.choice(names): _anything(chance, depth + 1) for _ in range(chance.randint(0, 2))}
    if depth < 5 and kind < 0.55:
        return [_anything(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return chance.choice(scalars)
