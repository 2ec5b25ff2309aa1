"""Any LangChain embeddings, by `langchain:PROVIDER:MODEL` or as an object, through the `langchain` package.

Keys and addresses are the business of the provider's package. Vectors are brought to unit length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crossrag import providers
from crossrag.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OPTIONS: dict[str, dict[str, Any]] = {"openai": {"check_embedding_ctx_length": False}}
"""By provider: langchain_openai else counts tokens with tables that it downloads. Chunks are short enough."""
_NAMES = ("model", "model_name", "model_id")


class LangChainEmbedder:
    """Embeds by a LangChain `Embeddings`.

    Args:
        model: `provider:model`, as `langchain.embeddings.init_embeddings` reads it, or such an object.
        fingerprint: What the index remembers of an object; None makes it of its class and the model's name.
            Give one where the same name may stand for other vectors.
        threads: Of no meaning here.

    Raises:
        ConfigError: There is no such provider.
        MissingExtraError: The provider's package is not installed.
        ModelError: It cannot be made, most often for want of a key.
    """

    def __init__(self, model: Any, *, fingerprint: str | None = None, threads: int = 0) -> None:
        del threads
        self._name = model if isinstance(model, str) else _named(model)
        self._model: Any = _made(model) if isinstance(model, str) else model
        self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> str:
        """Provider, model and dimension: a service does not say more of itself."""
        return self._fingerprint or f"langchain:{self._name}:{self.dimension}"

    @cached_property
    def dimension(self) -> int:
        """By embedding one word."""
        return int(self.embed_query("dimension").shape[0])

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """N texts to float32[n, d] of unit length.

        Raises:
            ModelError: The model failed, or gave something else than n vectors of one length.
        """
        if not texts:
            import numpy as np

            return np.zeros((0, self.dimension), np.float32)
        # Services refuse an empty text; a blank one of ours has a vector as well.
        asked = [text if text.strip() else "." for text in texts]
        return self._unit(lambda: self._model.embed_documents(asked), len(texts))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """One question to float32[d] of unit length.

        Raises:
            ModelError: The model failed, or gave no vector.
        """
        row: NDArray[np.float32] = self._unit(
            lambda: [self._model.embed_query(text if text.strip() else ".")], 1
        )[0]
        return row

    def _unit(self, work: Callable[[], Any], count: int) -> NDArray[np.float32]:
        import numpy as np

        try:
            said = work()
        except Exception as error:  # noqa: BLE001 - every provider's package raises its own
            failure = _failure(self._name, error)
        else:
            try:
                rows = np.asarray(said, np.float32)
            except (TypeError, ValueError):
                rows = np.zeros(0, np.float32)
            if rows.ndim != 2 or rows.shape[0] != count or not rows.shape[1] or not np.isfinite(rows).all():
                raise ModelError(f"{self._name} did not give {count} finite vectors of one length")
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        # Raised out here, with no exception in flight: nothing of the request is chained to it.
        raise failure


def _named(model: Any) -> str:
    name = next((str(said) for key in _NAMES if (said := getattr(model, key, None))), "")
    return ":".join(filter(None, (type(model).__name__, name)))


def _made(name: str) -> Any:
    from langchain.embeddings import init_embeddings

    options = _OPTIONS.get(name.partition(":")[0], {})
    return providers.made(
        name, lambda: init_embeddings(name, **options), failed=lambda error: _failure(name, error)
    )


def _failure(name: str, error: Exception) -> ModelError:
    """The same for the caller, without what may be a key."""
    quoted = providers.quoted(error).rstrip(".")
    return ModelError(
        f"{name} failed with {type(error).__name__}: {quoted}",
        hint="Check model, key and address of the provider",
    )
