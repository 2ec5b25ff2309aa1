"""For tests of programs that use crossrag: fakes that keep meaning, and the contracts that backends inherit.

A fake here is no mock: its embedder brings like texts together, its reranker prefers shared words.
"""

from .contracts import EmbedderContract as EmbedderContract
from .contracts import RerankerContract as RerankerContract
from .contracts import StoreContract as StoreContract
from .fakes import CannedGenerator as CannedGenerator
from .fakes import HashedEmbedder as HashedEmbedder
from .fakes import HashedTerms as HashedTerms
from .fakes import MemoryStore as MemoryStore
from .fakes import OverlapReranker as OverlapReranker
