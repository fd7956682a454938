"""One test set by every protocol: are the probabilities and the answers the same?

    python load_tests/protocols.py [--model mnist] [--data ../shared/data]

Posts the official test pictures as `.npy` to our own route, as pixel lists to TensorFlow Serving's,
as JSON and as binary tensors to the Open Inference Protocol's; 100 rows a request. Exits 1 if a
probability differs by more than 1e-6 or an answer at all.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from many_callers import serving
from numpy.typing import NDArray

from training import datasets

ROWS = 100
TOLERANCE = 1e-6
FILES = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FASHION_MNIST}

Pictures = NDArray[np.uint8]
Probabilities = NDArray[np.float64]
Ask = Callable[[httpx.Client, str, Pictures], Probabilities]


def native(client: httpx.Client, model: str, pictures: Pictures) -> Probabilities:
    """Ask by our own route."""
    stream = io.BytesIO()
    np.save(stream, pictures)
    response = client.post(
        f"/predict/{model}?probabilities=list",
        content=stream.getvalue(),
        headers={"Content-Type": "application/x-npy"},
    )
    response.raise_for_status()
    return np.array([row["probabilities"] for row in response.json()["predictions"]])


def tensorflow_serving(client: httpx.Client, model: str, pictures: Pictures) -> Probabilities:
    """Ask as TensorFlow Serving's REST clients do."""
    response = client.post(f"/v1/models/{model}:predict", json={"instances": pictures.tolist()})
    response.raise_for_status()
    return np.array(response.json()["predictions"])


def open_inference_json(client: httpx.Client, model: str, pictures: Pictures) -> Probabilities:
    """Ask by version 2 of the protocol, with numbers as JSON."""
    tensor = _tensor(pictures) | {"data": pictures.ravel().tolist()}
    response = client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})
    response.raise_for_status()
    output = response.json()["outputs"][0]
    return np.array(output["data"]).reshape(output["shape"])


def open_inference_binary(client: httpx.Client, model: str, pictures: Pictures) -> Probabilities:
    """Ask by version 2 of the protocol, with binary tensors in and out."""
    content = pictures.tobytes()
    tensor = _tensor(pictures) | {"parameters": {"binary_data_size": len(content)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = "Inference-Header-Content-Length"
    response = client.post(
        f"/v2/models/{model}/infer", content=head + content, headers={length: str(len(head))}
    )
    response.raise_for_status()
    cut = int(response.headers[length])
    shape = json.loads(response.content[:cut])["outputs"][0]["shape"]
    return np.frombuffer(response.content[cut:], np.float32).reshape(shape).astype(np.float64)


def _tensor(pictures: Pictures) -> dict[str, object]:
    return {"name": "rows", "shape": list(pictures.shape), "datatype": "UINT8"}


PROTOCOLS: dict[str, Ask] = {
    "native, .npy": native,
    "v1, JSON": tensorflow_serving,
    "v2, JSON": open_inference_json,
    "v2, binary": open_inference_binary,
}


def main() -> int:
    """Ask by each protocol, and print how they differ from our own route."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=FILES, default="mnist")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    pictures = datasets.load_pictures(options.data, FILES[options.model]).test_images
    found: dict[str, Probabilities] = {}
    with serving(Path("models")) as (_, address), httpx.Client(base_url=address) as client:
        for name, ask in PROTOCOLS.items():
            parts = [
                ask(client, options.model, pictures[start : start + ROWS])
                for start in range(0, len(pictures), ROWS)
            ]
            found[name] = np.concatenate(parts)
    first, *_ = found.values()
    is_same = True
    for name, probabilities in found.items():
        largest = float(np.abs(probabilities - first).max())
        others = int((probabilities.argmax(axis=1) != first.argmax(axis=1)).sum())
        print(
            f"{name}: {len(probabilities)} rows, differ by {largest:.1e} at most, {others} labels"
        )
        is_same = is_same and largest <= TOLERANCE and others == 0
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
