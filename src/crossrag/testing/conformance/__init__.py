"""Whether a reranker or a retriever keeps what everybody builds on: plain functions over a small shape.

    from crossrag.testing import conformance

    class Mine:
        def rank(self, query, texts, top_k):
            return [(position, score), ...]  # best first

    report = conformance.run(Mine())
    assert report.ok, report.failures

Each check says what it asks, why, and what it saw. `crossrag conformance TARGET` is the same as a command.
"""

from .suite import CHECKS as CHECKS
from .suite import Check as Check
from .suite import Report as Report
from .suite import Result as Result
from .suite import run as run
from .target import DocumentTarget as DocumentTarget
from .target import Passage as Passage
from .target import Ranked as Ranked
from .target import Reranking as Reranking
from .target import Retrieving as Retrieving
from .target import Searching as Searching
from .target import Target as Target
from .verdicts import Verdict as Verdict
