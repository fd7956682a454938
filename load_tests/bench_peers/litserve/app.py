"""LitServe, as one would write it for this network: batches of up to 32, no verdicts.

MODEL names an ONNX file with input float32 (rows, 28, 28, 1) and output probabilities (rows, 10).
"""

import os
from typing import Any

import litserve
import numpy as np
import onnxruntime
from numpy.typing import NDArray

Pictures = NDArray[np.float32]


class Classifier(litserve.LitAPI):  # type: ignore[misc]  # without types
    """What every worker process does."""

    def setup(self, device: str) -> None:  # noqa: ARG002  its name is LitServe's
        """Load the network."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a picture is too little work for two
        self._session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request: dict[str, Any]) -> Pictures:
        """Read a body."""
        return np.asarray(request["instances"], np.float32).reshape(28, 28, 1)

    def batch(self, inputs: list[Pictures]) -> Pictures:
        """Put pictures together."""
        return np.stack(inputs)

    def predict(self, x: Pictures) -> Pictures:
        """Run a batch."""
        probabilities: Pictures = self._session.run(None, {"input": x})[0]
        return probabilities

    def encode_response(self, output: Pictures) -> dict[str, Any]:
        """Write an answer."""
        return {"predictions": [output.tolist()]}


if __name__ == "__main__":
    api = Classifier(max_batch_size=32, batch_timeout=0.002)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=int(os.environ["WORKERS"]), fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=2,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
