"""The page: the files of `static/`, by a list made at start; no name of a request ever becomes a path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response

from .problems import Problem

if TYPE_CHECKING:
    from .routing import Router

FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
_INDEX = "index.html"


class Pages:
    """The files, read once."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            file.name: (file.read_bytes(), _TYPES[file.suffix])
            for file in sorted(folder.iterdir() if folder.is_dir() else ())
            if file.is_file() and file.suffix in _TYPES
        }

    def register(self, router: Router) -> None:
        """Add the routes; they are no part of the API's description."""
        for path, endpoint in (
            ("/", self.index),
            ("/d/{document_id}", self.index),
            ("/static/{name}", self.file),
        ):
            router.add("GET", path, endpoint, "public", include_in_schema=False)

    async def index(self) -> Response:
        """The page itself."""
        return self._reply(_INDEX)

    async def file(self, name: str) -> Response:
        """A file that it needs."""
        return self._reply(name)

    def _reply(self, name: str) -> Response:
        if name not in self._files:
            raise Problem(404, "There is no such file")
        content, media_type = self._files[name]
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})
