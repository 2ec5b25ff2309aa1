"""Path or bytes -> Document: found, read, parsed by the suffix, repaired once for everything that follows.

Knows nothing of chunks or indexes; fetches nothing.
"""

from .documents import load as load
from .documents import load_bytes as load_bytes
from .documents import too_large as too_large
from .files import Found as Found
from .files import find_files as find_files
from .formats import SUPPORTED_SUFFIXES as SUPPORTED_SUFFIXES
from .formats import reason_against as reason_against
from .limits import Limits as Limits
from .repair import clean_text as clean_text
from .workers import Loader as Loader
