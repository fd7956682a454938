"""GET /livez, /readyz and /metrics: what Kubernetes and Prometheus ask."""

import asyncio

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import ASGIApp

from service.api.middleware import RequestIds
from service.api.packing import accepted_coding, packed
from service.api.problems import MEDIA_TYPE, problem
from service.prediction import Catalogue
from service.telemetry.exposition import format_for
from service.telemetry.metrics import Metrics
from service.telemetry.workers import Workers

router = APIRouter()
metrics_router = APIRouter()
"""In one with the other, on the address of the models or on that of metrics."""


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> dict[str, str]:
    """Answer as long as the event loop turns."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Answer 200 only if there are models and each of them takes rows."""
    catalogue: Catalogue = request.app.state.catalogue
    if catalogue.is_ready:
        return Response(b'{"status":"ready"}', media_type="application/json")
    waiting = [predictor.name for predictor in catalogue if not predictor.is_ready]
    if waiting and request.app.state.has_keys:
        waiting = ["see the log"]  # who shows no key learns no names
    detail = f"not taking rows: {', '.join(waiting) or 'there are no models'}"
    if catalogue.is_ending:
        detail = "the server is stopping"
    body = problem(503, "not_ready", detail, request.scope["state"]["request_id"])
    return Response(body, 503, {"Retry-After": "1"}, media_type=MEDIA_TYPE.decode())


@metrics_router.head("/metrics", include_in_schema=False)
@metrics_router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return every metric of every worker; in OpenMetrics, with exemplars, for those who ask."""
    form = format_for(request.headers.get("accept", ""))
    workers: Workers | None = request.app.state.workers
    if workers is not None:
        content = await workers.exposition(form)
    else:
        measured: Metrics = request.app.state.metrics
        content = await asyncio.to_thread(measured.exposition, form)
    headers = {"content-type": form.media_type, "vary": "accept-encoding"}
    coding = accepted_coding(request.headers.get("accept-encoding", ""))
    if coding:
        headers["content-encoding"] = coding
        content = await packed(content, coding)
    return Response(content, headers=headers)


def create_metrics(
    catalogue: Catalogue, metrics: Metrics, workers: Workers | None, *, has_keys: bool
) -> ASGIApp:
    """Return the app of the metrics address, which also answers health checks.

    Args:
        catalogue: whose models have to be ready.
        metrics: of this process.
        workers: that are asked for their metrics as well; None: there is one process.
        has_keys: whether API keys are enabled; then /readyz names no models.
    """
    app = FastAPI(title="Dunno metrics", openapi_url=None)
    app.include_router(router)
    app.include_router(metrics_router)
    app.state.catalogue = catalogue
    app.state.has_keys = has_keys
    app.state.metrics = metrics
    app.state.workers = workers
    return RequestIds(app)
