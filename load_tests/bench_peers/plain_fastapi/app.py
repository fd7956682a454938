"""Plain FastAPI, as one would write it for this network: one session, no batches, no verdicts.

MODEL names an ONNX file with input float32 (rows, 28, 28, 1) and output probabilities (rows, 10).
The body is read by `request.json()`, without pydantic, which would cost more than all the rest.
"""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # a picture is too little work for two
session = onnxruntime.InferenceSession(
    os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
)
input_name = session.get_inputs()[0].name
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> JSONResponse:
    """Answer `{"instances": [picture, …]}` with `{"predictions": [probabilities, …]}`."""
    instances = (await request.json())["instances"]
    rows = np.array(instances, np.float32).reshape(-1, 28, 28, 1)
    (probabilities,) = session.run(None, {input_name: rows})
    return JSONResponse({"predictions": probabilities.tolist()})
