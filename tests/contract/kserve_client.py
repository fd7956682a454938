"""KServe's own client against a running service; in an environment of its own, see test_kserve.py.

    python kserve_client.py http://127.0.0.1:8000 fruit

Prints what the client made of each answer, as one JSON object.
"""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

ROWS = np.array([[9, 0, 0], [0, 9, 0]], np.float32)


async def ask(address: str, model: str) -> dict[str, object]:
    """Return liveness, readiness and predictions by both versions of the protocol."""
    found: dict[str, object] = {}
    for version in ("v1", "v2"):
        client = InferenceRESTClient(RESTConfig(protocol=version, retries=0))
        found[f"{version} live"] = await client.is_server_live(address)
        found[f"{version} model ready"] = await client.is_model_ready(address, model)
        if version == "v1":
            answer = await client.infer(address, {"instances": ROWS.tolist()}, model_name=model)
            found["v1 predictions"] = answer["predictions"]
        else:
            found["v2 ready"] = await client.is_server_ready(address)
            for is_binary in (False, True):
                tensor = InferInput("rows", list(ROWS.shape), "FP32")
                tensor.set_data_from_numpy(ROWS, binary_data=is_binary)
                request = InferRequest(model_name=model, infer_inputs=[tensor])
                answer = await client.infer(address, request, model_name=model)
                name = "v2 binary" if is_binary else "v2 json"
                found[name] = answer.outputs[0].as_numpy().tolist()
        await client.close()
    return found


sys.stdout.write(json.dumps(asyncio.run(ask(*sys.argv[1:]))))
