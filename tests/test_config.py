"""Layers of settings, their origins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossrag.config import Settings, load_settings
from crossrag.errors import ConfigError


def test_the_later_layer_wins_leaf_by_leaf(tmp_path: Path) -> None:
    (tmp_path / "crossrag.toml").write_text("[reranking]\ntop_k = 3\ndepth = 20\n", encoding="utf-8")
    loaded = load_settings(
        {"reranking": {"depth": 30}},
        environ={"CROSSRAG_RERANKING__TOP_K": "4", "OTHER": "x"},
        directory=tmp_path,
    )
    assert (loaded.settings.reranking.top_k, loaded.settings.reranking.depth) == (4, 30)
    assert loaded.origins == {"reranking.top_k": "CROSSRAG_RERANKING__TOP_K", "reranking.depth": "argument"}


def test_defaults_are_those_of_the_guide(tmp_path: Path) -> None:
    settings = load_settings(environ={}, directory=tmp_path).settings
    assert settings == Settings()
    assert (settings.chunking.size, settings.chunking.overlap, settings.reranking.top_k) == (800, 150, 6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[rerankin]\ntop_k = 3", "Did you mean 'reranking'"),
        ("[reranking]\ntopk = 3", "Did you mean 'top_k'"),
        ("[reranking]\ntop_k = 0", "reranking.top_k"),
        ("[server.collections]\n'a/b' = 'x'", "'a/b' is no name of a collection"),
        ("[server.collections]\nbienenst\u00f6cke = 'x'", "not valid TOML"),
        ("[server.collections]\n'bienenst\u00f6cke' = 'x'", "letters A to Z, digits, - and _, at most 63"),
        ("[server.collections]\ndefault = 'x'", "not default"),
        ("[server]\napi_key = ' '", "the key is empty"),
        ("reranking = 3", "is a section"),
        ("[reranking", "not valid TOML"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "crossrag.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"crossrag\.toml") as caught:
        load_settings(environ={}, directory=tmp_path)
    assert says in str(caught.value)


def test_a_key_from_a_file_is_no_other_for_its_last_line(tmp_path: Path) -> None:
    environ = {"CROSSRAG_SERVER__API_KEY": "secret\n"}
    key = load_settings(environ=environ, directory=tmp_path).settings.server.api_key
    assert key is not None
    assert key.get_secret_value() == "secret"


def test_mistakes_in_the_environment_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CROSSRAG_TOPK"):
        load_settings(environ={"CROSSRAG_TOPK": "3"}, directory=tmp_path)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CROSSRAG_PORT", "tcp://10.0.0.7:80"),
        ("CROSSRAG_SERVICE_HOST", "fd00::7"),
        ("CROSSRAG_SERVICE_PORT_HTTP", "80"),
        ("CROSSRAG_QDRANT_PORT_6333_TCP", "tcp://[fd00::7]:6333"),
        ("CROSSRAG_QDRANT_PORT_6333_TCP_PROTO", "tcp"),
    ],
)
def test_links_to_services_of_kubernetes_are_no_settings(tmp_path: Path, variable: str, text: str) -> None:
    assert load_settings(environ={variable: text}, directory=tmp_path).origins == {}


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CROSSRAG_SERVER_PORT", "8777"),
        ("CROSSRAG_SERVER_HOST", "0.0.0.0"),  # noqa: S104
        ("CROSSRAG_QDRANT_URL", "http://qdrant:6333"),
        ("CROSSRAG_SERVICE_HOST", "localhost"),
        ("CROSSRAG_SERVER__PROT", "8777"),
    ],
)
def test_what_only_looks_like_one_is_a_mistake(tmp_path: Path, variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        load_settings(environ={variable: text}, directory=tmp_path)


def test_secrets_are_masked_everywhere(tmp_path: Path) -> None:
    loaded = load_settings({"openai": {"api_key": "sk-secret"}}, environ={}, directory=tmp_path)
    assert "sk-secret" not in repr(loaded) + " ".join(row.value for row in loaded.rows())
    with pytest.raises(ConfigError) as caught:
        load_settings({"openai": {"api_key": ["sk-secret"]}}, environ={}, directory=tmp_path)
    assert "sk-secret" not in str(caught.value)
