"""`/api/v1/documents`: listed, uploaded, read and deleted."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from crossrag.pipeline import Rag

from . import documents, uploads
from .problems import Problem
from .routing import Policy, Router
from .running import opened, run
from .schemas import Collection, DocumentReply, DocumentsReply, TextReply, UploadReply
from .service import DEFAULT, Service

_TEXT = 200_000
"""Characters of a document's text that are given at once."""
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
                        }
                    },
                }
            }
        },
    }
}
_OPERATIONS = {"one": "document", "text": "document_text", "delete": "delete_document"}
"""What the description calls what can be done with one document."""


def _linked(place: str) -> dict[int | str, Any]:
    """What the description says of a reply that names a document: what can be done with it."""
    links = {
        name: {"operationId": name, "parameters": {"document_id": place}} for name in _OPERATIONS.values()
    }
    return {200: {"links": links}}


Place = Annotated[str, Query(pattern="^[A-Za-z0-9_-]{1,63}$")]
Offset = Annotated[int, Query(ge=0, le=2**53)]


class Files:
    """The routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def register(self, router: Router, responses: dict[int | str, Any]) -> None:
        """Add them."""
        one = "/api/v1/documents/{document_id}"
        add = router.add
        add(
            "GET",
            "/api/v1/documents",
            self.every,
            "read",
            response_model=DocumentsReply,
            responses=responses | _linked("$response.body#/documents/0/id"),
        )
        add(
            "POST",
            "/api/v1/documents",
            self.upload,
            "write",
            upload=True,
            response_model=UploadReply,
            responses=responses | _linked("$response.body#/files/0/document_id"),
            openapi_extra=_BODY,
        )
        of_one: tuple[tuple[str, str, Callable[..., Any], Policy, dict[str, Any]], ...] = (
            ("GET", one, self.one, "read", {"response_model": DocumentReply}),
            ("GET", f"{one}/text", self.text, "read", {"response_model": TextReply}),
            ("DELETE", one, self.delete, "write", {"status_code": 204}),
        )
        for method, path, endpoint, policy, rest in of_one:
            name = _OPERATIONS[endpoint.__name__]
            add(method, path, endpoint, policy, responses=responses, operation_id=name, **rest)

    async def every(
        self,
        request: Request,
        collection: Place = DEFAULT,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        cursor: Annotated[str, Query(max_length=64)] = "",
        contains: Annotated[str, Query(max_length=256)] = "",
    ) -> dict[str, Any]:
        """What a collection holds, in order of source."""
        rag, folder = await self._place(request, collection)

        def work(_: object) -> dict[str, Any]:
            found = list(documents.entries(rag).values())
            page, total, following = documents.listed(found, contains=contains, after=cursor, limit=limit)
            rows = [documents.described(entry, uploaded=uploads.uploaded(folder, entry)) for entry in page]
            return {"documents": rows, "total": total, "next_cursor": following}

        return await run(request, self._service, work)

    async def upload(self, request: Request, collection: Place = DEFAULT) -> dict[str, Any]:
        """Index files; one that cannot be read fails alone."""
        limits = self._service.limits
        self._service.made(collection, request.state.principal.tenant)  # 404 before the body is read
        async with request.form(max_files=limits.upload_files, max_fields=4) as form:
            given = [
                uploads.Given(part.filename or "file", part.file)
                for part in form.getlist("files")
                if isinstance(part, UploadFile)
            ]
            if not given:
                raise Problem(422, "There is no part named files", hint="Send multipart/form-data")
            rag, folder = await self._place(request, collection)
            try:
                return await run(request, self._service, lambda _: uploads.store(rag, folder, given))
            except Problem as problem:
                if problem.status == 504:  # what was begun goes on
                    problem.detail = "Reading and indexing take longer than a request may"
                    problem.hint = (
                        "They may go on: look at the list of documents, or send fewer files at once"
                    )
                raise

    async def one(self, request: Request, document_id: str, collection: Place = DEFAULT) -> dict[str, Any]:
        """A document."""
        rag, folder = await self._place(request, collection)

        def work(_: object) -> dict[str, Any]:
            entry = documents.find_entry(rag, document_id)
            return documents.described(entry, uploaded=uploads.uploaded(folder, entry))

        return await run(request, self._service, work)

    async def text(
        self,
        request: Request,
        document_id: str,
        collection: Place = DEFAULT,
        start: Offset = 0,
        end: Offset | None = None,
    ) -> dict[str, Any]:
        """A document's text as it was indexed, from `start` on; offsets are those of citations."""
        rag, _ = await self._place(request, collection)

        def work(_: object) -> dict[str, Any]:
            entry = documents.find_entry(rag, document_id)
            whole = documents.reassembled(rag, entry)
            last = min(start + _TEXT, whole.length if end is None else min(end, whole.length))
            return {
                "id": document_id,
                "source": entry.source,
                "title": whole.title,
                "length": whole.length,
                "start": start,
                "end": max(start, last),
                "text": whole.between(start, last),
                "passages": [
                    {
                        "id": chunk.id,
                        "start": chunk.start,
                        "end": chunk.end,
                        "page": chunk.page,
                        "page_name": chunk.page_name,
                        "title_path": list(chunk.title_path),
                    }
                    for chunk in whole.chunks
                    if start <= chunk.start < last
                ],
            }

        return await run(request, self._service, work)

    async def delete(self, request: Request, document_id: str, collection: Place = DEFAULT) -> Response:
        """Delete an uploaded document."""
        rag, folder = await self._place(request, collection)

        def work(_: object) -> None:
            entry = documents.find_entry(rag, document_id)
            if not uploads.remove(rag, folder, entry):
                raise Problem(
                    403,
                    "This document was not uploaded here",
                    hint="Delete its file and run crossrag ingest, or crossrag delete",
                )

        await run(request, self._service, work)
        return Response(status_code=204)

    async def _place(self, request: Request, collection: Collection) -> tuple[Rag, Path]:
        """The index that is meant, and where its uploads are."""
        rag = await opened(request, self._service, collection)
        return rag, self._service.uploads(collection, request.state.principal.tenant)
