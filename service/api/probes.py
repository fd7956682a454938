"""GET /livez, /readyz and /metrics: what Kubernetes and Prometheus ask."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.problems import MEDIA_TYPE, problem
from service.prediction import Catalogue
from service.telemetry.metrics import Metrics

router = APIRouter(tags=["operations"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Answer as long as the event loop turns."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Answer 200 only if there are models and each of them takes rows."""
    catalogue: Catalogue = request.app.state.catalogue
    if catalogue.is_ready:
        return Response(b'{"status":"ready"}', media_type="application/json")
    waiting = [predictor.name for predictor in catalogue if not predictor.is_ready]
    detail = f"not taking rows: {', '.join(waiting) or 'there are no models'}"
    body = problem(503, "not_ready", detail, request.scope["state"]["request_id"])
    return Response(body, 503, {"Retry-After": "1"}, media_type=MEDIA_TYPE.decode())


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Return every metric in Prometheus' text format; made in a thread, off the event loop."""
    measured: Metrics = request.app.state.metrics
    return Response(measured.exposition(), media_type=CONTENT_TYPE_LATEST)
