"""Plain FastAPI for reviews: the same tokens, graph and calibration; no batches, no verdicts.

MODEL names a bundle of texts.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from service.bundle import read_bundle
from service.bundle.manifest import TextInput
from service.decision import calibrated
from service.inputs.texts import Tokenizer, read_vocabulary

bundle = read_bundle(Path(os.environ["MODEL"]))
declared = bundle.manifest.input
if not isinstance(declared, TextInput):
    raise TypeError(f"{bundle.path}: not for texts")
tokenizer = Tokenizer(declared, read_vocabulary(bundle.read(declared.vocabulary)))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(
    bundle.read("model.onnx"), options, providers=["CPUExecutionProvider"]
)
input_name = bundle.manifest.graph.input.name
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> JSONResponse:
    """Answer `{"instances": [text, …]}` with `{"predictions": [probabilities, …]}`."""
    texts = (await request.json())["instances"]
    rows = np.stack([tokenizer.ids(text) for text in texts])
    (logits,) = session.run(["logits"], {input_name: rows})
    probabilities = calibrated(logits, bundle.manifest.calibration)
    return JSONResponse({"predictions": probabilities.tolist()})
