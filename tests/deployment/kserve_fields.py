"""Print the fields of each type of KServe's client, as JSON: what stands in an InferenceService.

Runs in the environment of KServe's client.
"""

import json

import kserve

found = {
    name: sorted(kind.attribute_map.values())
    for name, kind in vars(kserve).items()
    if hasattr(kind, "attribute_map")
}
print(json.dumps(found))  # noqa: T201  the test reads it
