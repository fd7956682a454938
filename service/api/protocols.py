"""The protocols that are not ours, put together: which path goes where."""

from collections.abc import Mapping

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from service.api.calls import Resources
from service.api.clouds import cloud_routes
from service.api.open_inference import OpenInference
from service.api.tensorflow_serving import TensorFlowServing


class _Rest(PathConvertor):
    """The rest of a path, be there line breaks in it: its protocol says what is wrong with it."""

    regex = "(?s:.*)"


register_url_convertor("rest", _Rest())


def protocol_routes(
    resources: Resources, native: ASGIApp, environment: Mapping[str, str]
) -> list[BaseRoute]:
    """Return the routes of all protocols but the native one.

    Those that an environment variable sets come first: Vertex AI's lie below /v1/ as well.

    Args:
        resources: what they are served from.
        native: where the native route is answered.
        environment: of this process.
    """
    version_1, version_2 = TensorFlowServing(resources), OpenInference(resources)
    return [
        *cloud_routes(resources, native, environment),
        Route("/v1/{rest:rest}", version_1),
        Route("/V1/{rest:rest}", version_1),
        Route("/v2", version_2),
        Route("/v2/{rest:rest}", version_2),
    ]
