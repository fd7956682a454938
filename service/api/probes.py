"""GET /livez, /readyz and /metrics: what Kubernetes and Prometheus ask."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from service.api.problems import MEDIA_TYPE, problem
from service.api.schemas import documented_problems
from service.prediction import Catalogue
from service.telemetry.exposition import format_for
from service.telemetry.metrics import Metrics
from service.telemetry.workers import Workers

router = APIRouter(tags=["operations"])


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> dict[str, str]:
    """Answer as long as the event loop turns."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=documented_problems({503: "Not taking rows; see Retry-After."}))
async def readyz(request: Request) -> Response:
    """Answer 200 only if there are models and each of them takes rows."""
    catalogue: Catalogue = request.app.state.catalogue
    if catalogue.is_ready:
        return Response(b'{"status":"ready"}', media_type="application/json")
    waiting = [predictor.name for predictor in catalogue if not predictor.is_ready]
    detail = f"not taking rows: {', '.join(waiting) or 'there are no models'}"
    if catalogue.is_ending:
        detail = "the server is stopping"
    body = problem(503, "not_ready", detail, request.scope["state"]["request_id"])
    return Response(body, 503, {"Retry-After": "1"}, media_type=MEDIA_TYPE.decode())


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return every metric of every worker; in OpenMetrics, with exemplars, for those who ask."""
    form = format_for(request.headers.get("accept", ""))
    workers: Workers | None = request.app.state.workers
    if workers is not None:
        content = await workers.exposition(form)
    else:
        measured: Metrics = request.app.state.metrics
        content = await asyncio.to_thread(measured.exposition, form)
    return Response(content, headers={"content-type": form.media_type})
