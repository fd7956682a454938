"""GET /, /docs and /playground/…: the pages for people, as files that are read once.

They need nothing from elsewhere and hold nothing about a model: what they show comes from the
routes that everybody has.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from service.api.calls import json_response

FOLDER = Path(__file__).parent / "playground"
PLAYGROUND, REFERENCE = "playground.html", "reference.html"
TO_PLAYGROUND, TO_REFERENCE = b'<a href="./">Playground</a>', b'<a href="docs">Reference</a>'
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Suffix -> media type of the files that are served; others are not."""

OF_REFERENCE = {
    REFERENCE,
    "style.css",
    "icon.svg",
    "reference.js",
    "schemas.js",
    "api.js",
    "dom.js",
}
"""Files that /docs consists of, which is there without the playground as well."""

POLICY = "; ".join(
    [
        *("default-src 'none'", "script-src 'self'", "style-src 'self'"),
        *("img-src 'self' data: blob:", "connect-src 'self'", "form-action 'none'"),
        *("base-uri 'none'", "frame-ancestors 'none'"),
    ]
)
HEADERS = {
    "cache-control": "no-cache",  # asked for again each time, and answered with 304
    "content-security-policy": POLICY,
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


def page_routes(*, has_playground: bool, has_reference: bool) -> list[BaseRoute]:
    """Return the routes of the pages.

    Args:
        has_playground: whether browsers get the playground at `/`; else they are told that the
            server is alive, as everybody else is.
        has_reference: whether there is /docs.
    """
    links = {TO_PLAYGROUND: has_playground, TO_REFERENCE: has_reference}
    dead = [link for link, leads_somewhere in links.items() if not leads_somewhere]
    files = {
        path.name: _read(path, dead)
        for path in FOLDER.iterdir()
        if path.suffix in MEDIA_TYPES and (has_playground or path.name in OF_REFERENCE)
    }

    async def root(request: Request) -> Response:
        if has_playground and "text/html" in request.headers.get("accept", ""):
            return _respond(request, files[PLAYGROUND], {"vary": "accept"})
        answer = json_response({"status": "alive"})  # what KServe's readers of version 1 look for
        answer.headers["vary"] = "accept"
        return answer

    async def reference(request: Request) -> Response:
        return _respond(request, files[REFERENCE])

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise HTTPException(404)
        return _respond(request, files[name])

    routes: list[BaseRoute] = [
        Route("/", root, methods=["GET"]),
        Route("/playground/{name}", file, methods=["GET"]),
    ]
    if has_reference:
        routes.append(Route("/docs", reference, methods=["GET"]))
    return routes


def _read(path: Path, dead: Sequence[bytes]) -> _File:
    content = path.read_bytes()
    for link in dead:
        content = content.replace(link, b"")
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, MEDIA_TYPES[path.suffix], etag)


def _respond(request: Request, file: _File, more: dict[str, str] | None = None) -> Response:
    headers = {**HEADERS, "etag": file.etag, **(more or {})}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers={**headers, "content-type": file.media_type})
