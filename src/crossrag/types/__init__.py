"""The values that flow through crossrag. All are frozen; a stage returns new ones.

Know nothing of files, models or stores.
"""

from .answers import Answer as Answer
from .answers import Citation as Citation
from .answers import Cited as Cited
from .answers import Claim as Claim
from .answers import Claimed as Claimed
from .answers import Context as Context
from .answers import Delta as Delta
from .answers import Done as Done
from .answers import Event as Event
from .answers import Retrieved as Retrieved
from .answers import Source as Source
from .answers import Status as Status
from .answers import Turn as Turn
from .answers import Unsupported as Unsupported
from .documents import VARIANT as VARIANT
from .documents import WORD_JOINER as WORD_JOINER
from .documents import Chunk as Chunk
from .documents import Document as Document
from .documents import Failure as Failure
from .documents import IngestReport as IngestReport
from .documents import SparseVector as SparseVector
from .documents import StoredPoint as StoredPoint
from .documents import Where as Where
from .rankings import Candidate as Candidate
from .rankings import Expansion as Expansion
from .rankings import Hit as Hit
from .rankings import Ranking as Ranking
from .rankings import Rankings as Rankings
from .rankings import Relevance as Relevance
from .rankings import Scores as Scores
from .rankings import Truncated as Truncated
from .rankings import View as View
