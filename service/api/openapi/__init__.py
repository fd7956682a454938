"""What the server takes and gives, as an OpenAPI document: made from its own tables and manifests.

Nothing here answers a request for a prediction, and nothing is made before somebody asks for it.
"""

from service.api.openapi.document import Documents, Surroundings

__all__ = ["Documents", "Surroundings"]
