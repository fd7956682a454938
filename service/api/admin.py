"""The admin address: load, unload, reload; a second listener, on loopback unless there is a key.

Nothing that comes over it names a path, a file or a setting: it says *when* the operator's
catalogue is read, never what is in it.
"""

import asyncio
import hmac
from http import HTTPStatus
from typing import TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException as RoutingException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.middleware import Headers, RequestIds, header
from service.api.problems import MEDIA_TYPE, problem, status_of
from service.errors import BodyTimedOut, BodyTooLarge, DunnoError, InputInvalid, code_of
from service.prediction import Catalogue, Reloader
from service.settings import Settings

MOST_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0
Body = TypeVar("Body", bound=BaseModel)

_EXPECTED = {"extra_forbidden": "nothing", "json_invalid": "JSON in UTF-8"}
"""What is wrong to pydantic -> what was expected."""

router = APIRouter()


class IndexBody(BaseModel):
    """What may be asked of the index."""

    model_config = ConfigDict(extra="forbid")

    ready: bool = False
    """Whether only models that are served are listed."""


class NoParameters(BaseModel):
    """Triton's parameters of a load; ours has none, `config` and `file:` least of all."""

    model_config = ConfigDict(extra="forbid")


class LoadBody(BaseModel):
    """What may be said of a load: nothing."""

    model_config = ConfigDict(extra="forbid")

    parameters: NoParameters = NoParameters()


class UnloadParameters(BaseModel):
    """What Triton's clients say of an unload; no model here depends on another."""

    model_config = ConfigDict(extra="forbid")

    unload_dependents: bool = False


class UnloadBody(BaseModel):
    """What may be said of an unload."""

    model_config = ConfigDict(extra="forbid")

    parameters: UnloadParameters = UnloadParameters()


@router.post("/v2/repository/index")
async def list_repository(request: Request) -> list[dict[str, str]]:
    """Return name, version and state of all that is served or should be."""
    body = await _read(request, IndexBody)
    catalogue: Catalogue = request.app.state.catalogue
    found = [
        _indexed(predictor.name, predictor.manifest.version, "READY") for predictor in catalogue
    ]
    failed = [
        _indexed(name, "", "UNAVAILABLE", str(error)) for name, error in catalogue.failures.items()
    ]
    return found if body.ready else found + failed


@router.post("/v2/repository/models/{name}/load")
async def load_model(request: Request, name: str) -> Response:
    """Serve a model as the catalogue says now."""
    await _read(request, LoadBody)
    reloader: Reloader = request.app.state.reloader
    await reloader.load(name)
    return Response()


@router.post("/v2/repository/models/{name}/unload")
async def unload_model(request: Request, name: str) -> Response:
    """Serve a model no more, until it is loaded or the catalogue is read anew."""
    await _read(request, UnloadBody)
    reloader: Reloader = request.app.state.reloader
    await reloader.unload(name)
    return Response()


@router.post("/reload")
async def reload_catalogue(request: Request) -> Response:
    """Read the catalogue anew and serve what it says; 500 if a model stays as it was."""
    await _read(request, LoadBody)
    reloader: Reloader = request.app.state.reloader
    failures = await reloader.reload()
    if failures:
        detail = "; ".join(str(error) for error in failures.values())
        return _failure(request, 500, "reload_failed", detail, models=list(failures))
    catalogue: Catalogue = request.app.state.catalogue
    versions = {name: list(served.predictors) for name, served in catalogue.served.items()}
    return Response(orjson.dumps({"models": versions}), media_type="application/json")


def _indexed(name: str, version: str, state: str, reason: str = "") -> dict[str, str]:
    return {"name": name, "version": version, "state": state, "reason": reason}


async def _read(request: Request, kind: type[Body]) -> Body:
    """Return the body of a request, whatever its media type; nothing is the same as {}."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            content = await _read_all(request)
    except TimeoutError:
        raise BodyTimedOut(f"the body was not complete after {BODY_TIMEOUT_S:g} s") from None
    try:
        return kind.model_validate_json(content or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        expected = _EXPECTED.get(first["type"], first["msg"])
        raise InputInvalid(place, expected, type(first["input"]).__name__) from None


async def _read_all(request: Request) -> bytes:
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MOST_BODY_BYTES:
            raise BodyTooLarge("the body", MOST_BODY_BYTES, "bytes")
    return content


def _failure(request: Request, status: int, code: str, detail: str, **more: object) -> Response:
    """Return a problem that clients of the v2 protocol can read as well: they look for `error`."""
    request_id = str(request.scope["state"]["request_id"])
    content = problem(status, code, detail, request_id, error=detail, **more)
    return Response(content, status, media_type=MEDIA_TYPE.decode())


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, DunnoError)  # noqa: S101  registered for nothing else
    return _failure(request, status_of(error), code_of(error), str(error))


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, RoutingException)  # noqa: S101  registered for nothing else
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    response = _failure(request, error.status_code, code, detail)
    response.headers.update(error.headers or {})
    return response


def create_admin(catalogue: Catalogue, reloader: Reloader, settings: Settings) -> ASGIApp:
    """Return the service of the admin address."""
    app = FastAPI(title="Dunno admin", openapi_url=None)
    app.include_router(router)
    app.add_exception_handler(DunnoError, _refuse)
    app.add_exception_handler(RoutingException, _refuse_route)
    app.state.catalogue = catalogue
    app.state.reloader = reloader
    key = settings.admin_key
    return RequestIds(Guard(app, None if key is None else key.get_secret_value()))


class Guard:
    """Lets nobody through who does not show the key, and no web page."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._authorization = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; see the ASGI specification."""
        refusal = self._refusal(scope["headers"]) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            status, code, detail = refusal
            response = _failure(Request(scope), status, code, detail)
            if status == HTTPStatus.UNAUTHORIZED:
                response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)

    def _refusal(self, headers: Headers) -> tuple[int, str, str] | None:
        if header(headers, b"origin"):  # any page in a browser of this machine can post here
            return HTTPStatus.FORBIDDEN, "forbidden", "web pages have no business here"
        if self._authorization is None:
            return None
        shown = header(headers, b"authorization")
        if hmac.compare_digest(shown, self._authorization):
            return None
        return HTTPStatus.UNAUTHORIZED, "unauthorized", "expected Authorization: Bearer <key>"
