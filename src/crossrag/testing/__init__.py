"""For tests of programs that use crossrag: fakes that keep meaning, and the contracts that backends inherit.

A fake here is no mock: its embedder brings like texts together, its reranker prefers shared words.
"""

from .contracts import EmbedderContract as EmbedderContract
from .contracts import RerankerContract as RerankerContract
from .fakes import CannedGenerator as CannedGenerator
from .fakes import HashedEmbedder as HashedEmbedder
from .fakes import HashedTerms as HashedTerms
from .fakes import OverlapGrounder as OverlapGrounder
from .fakes import OverlapReranker as OverlapReranker
from .faults import Fault as Fault
from .grounder_contract import GrounderContract as GrounderContract
from .langchain_contract import CompressorContract as CompressorContract
from .langchain_contract import CrossEncoderContract as CrossEncoderContract
from .memory_store import MemoryStore as MemoryStore
from .store_contract import StoreContract as StoreContract
from .tenant_contract import TenantContract as TenantContract
