"""crossrag: answers from your own documents, read by a cross-encoder, with citations that were checked.

from crossrag import Rag

with Rag.open("./index") as rag:
    rag.ingest("docs/")
    print(rag.ask("How do I restore a backup?").text)
"""

import os as _os

# Composition
# Settings
from .config import Settings as Settings

# Errors
from .errors import ConfigError as ConfigError
from .errors import CrossragError as CrossragError
from .errors import FingerprintError as FingerprintError
from .errors import GeneratorError as GeneratorError
from .errors import IndexMissingError as IndexMissingError
from .errors import LoadError as LoadError
from .errors import MissingExtraError as MissingExtraError
from .errors import ModelError as ModelError
from .errors import StoreError as StoreError
from .errors import StoreLockedError as StoreLockedError
from .errors import StoreSlowError as StoreSlowError
from .errors import UsageError as UsageError
from .pipeline import Rag as Rag

# Seams
from .protocols import Embedder as Embedder
from .protocols import Generator as Generator
from .protocols import Grounder as Grounder
from .protocols import Reranker as Reranker
from .protocols import SparseEncoder as SparseEncoder
from .protocols import Store as Store

# Context -> answer
from .types import Answer as Answer

# Query -> candidates -> reranked
from .types import Candidate as Candidate

# Documents -> chunks -> index
from .types import Chunk as Chunk
from .types import Citation as Citation
from .types import Cited as Cited
from .types import Claim as Claim
from .types import Claimed as Claimed
from .types import Context as Context
from .types import Delta as Delta
from .types import Document as Document
from .types import Done as Done
from .types import Event as Event
from .types import Failure as Failure
from .types import IngestReport as IngestReport
from .types import Ranking as Ranking
from .types import Relevance as Relevance
from .types import Retrieved as Retrieved
from .types import Scores as Scores
from .types import Source as Source
from .types import Turn as Turn
from .types import Unsupported as Unsupported

__version__ = "0.1.0"

# From 1.32 on, ONNX Runtime reports to its makers and keeps an id of the machine in the home folder, unless
# this is set before it is loaded.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
