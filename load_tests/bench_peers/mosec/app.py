"""Mosec, as one would write it for this network: batches of up to 32, no verdicts.

MODEL names an ONNX file with input float32 (rows, 28, 28, 1) and output probabilities (rows, 10).
"""

import os

import numpy as np
import onnxruntime
import orjson
from mosec import Server, Worker
from numpy.typing import NDArray

Picture = NDArray[np.float32]


class Classifier(Worker):  # type: ignore[misc]  # without types
    """One process that reads, runs and answers."""

    def __init__(self) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a picture is too little work for two
        self._session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def deserialize(self, data: bytes) -> Picture:
        """Read a body."""
        instances = orjson.loads(data)["instances"]
        return np.asarray(instances, np.float32).reshape(28, 28, 1)

    def forward(self, data: list[Picture]) -> list[Picture]:
        """Run a batch."""
        return list(self._session.run(None, {"input": np.stack(data)})[0])

    def serialize(self, data: Picture) -> bytes:
        """Write an answer."""
        return orjson.dumps({"predictions": [data]}, option=orjson.OPT_SERIALIZE_NUMPY)


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Classifier, num=int(os.environ["WORKERS"]), max_batch_size=32, max_wait_time=2
    )
    server.run()
