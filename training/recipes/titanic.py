"""Who survived the Titanic, from the passenger list: a logistic regression in ONNX, packed.

Expected: 82.5 % right on the 445 passengers that train nothing, 93.9 % of them answered at a
certified error of 20 %; 2 s on two cores, seed 1912.
"""

import csv
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from service.bundle.manifest import FeatureField, FeatureInput
from training.datasets import TITANIC, fetch
from training.packing.packed_recipe import PackedRecipe
from training.recipe import Data, Fitted, Split, Splits, Workbench

SEED = 1912
LABELS = ("died", "survived")

# --- Data -------------------------------------------------------------------------------------

FIELDS = (
    FeatureField(name="passenger_class", unit="1, 2 or 3", minimum=1, maximum=3),
    FeatureField(name="is_female", unit="1 yes, 0 no", minimum=0, maximum=1),
    FeatureField(name="age", unit="years", minimum=0, maximum=120, nullable=True),
    FeatureField(name="siblings_spouses", unit="aboard", minimum=0, maximum=20),
    FeatureField(name="parents_children", unit="aboard", minimum=0, maximum=20),
    FeatureField(name="fare", unit="pounds", minimum=0, maximum=1000, nullable=True),
    FeatureField(
        name="port",
        unit="1 Southampton, 2 Cherbourg, 3 Queenstown",
        minimum=1,
        maximum=3,
        nullable=True,
    ),
)
PORTS = {"S": 1.0, "C": 2.0, "Q": 3.0}  # in the order in which the ship called
MISSING = float("nan")

NOTE = """The 891 passengers of Kaggle's `train.csv`; 177 ages and 2 ports are not known. One half
trains the regression, the other is what `dunno pack` is given: the regression has not seen it, and
every number here comes from it. Passengers that nothing tells apart stay in one half. Missing
values are filled in inside the graph, by the training half's median, or its most frequent port."""


def load(folder: Path) -> Data:
    """Return the passengers in two halves."""
    with fetch(folder, TITANIC).open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    rows = np.array([_row(line) for line in table], np.float32)
    targets = np.array([int(line["Survived"]) for line in table], np.int64)
    groups = np.unique([row.tobytes() for row in rows], return_inverse=True)[1]
    halves = StratifiedGroupKFold(2, shuffle=True, random_state=SEED)
    train, calibration = next(halves.split(rows, targets, groups))
    return Data(
        splits=Splits(
            train=Split(rows[train], targets[train]),
            calibration=Split(rows[calibration], targets[calibration]),
        ),
        input=FeatureInput(fields=FIELDS),
        sha256={TITANIC.name: TITANIC.sha256},
        mixture="passengers of the Titanic, ages missing as they are on the list",
        note=NOTE,
    )


def _row(line: dict[str, str]) -> list[float]:
    return [
        float(line["Pclass"]),
        float(line["Sex"] == "female"),
        float(line["Age"] or MISSING),
        float(line["SibSp"]),
        float(line["Parch"]),
        float(line["Fare"] or MISSING),
        PORTS.get(line["Embarked"], MISSING),
    ]


# --- Network ----------------------------------------------------------------------------------

NUMBERS = slice(0, 6)
PORT = [6]
DESCRIBED = "standardised"
"""Tensor that novelty is measured over: the numbers, filled in and standardised."""


def build() -> Pipeline:
    """Return the regression on the numbers, their squares and products, and the port.

    Products, because the women of the first two classes were saved and those of the third were
    not: without them the most confident tenth of the answers is no better than the rest.
    """
    numbers = make_pipeline(
        SimpleImputer(strategy="median"),
        StandardScaler(),
        PolynomialFeatures(2, include_bias=False),
    )
    # A port that nobody boarded at is no port, instead of a failure of the whole batch.
    one_hot = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    port = make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot)
    columns = ColumnTransformer([("numbers", numbers, NUMBERS), ("port", port, PORT)])
    return make_pipeline(columns, LogisticRegression(C=COST, max_iter=MOST_STEPS))


def convert(regression: Pipeline) -> bytes:
    """Return the fitted regression as an ONNX graph, its standardised numbers under a name."""
    rows = [("passengers", FloatTensorType([None, len(FIELDS)]))]
    model = to_onnx(regression, initial_types=rows, options={"zipmap": False})
    (scaler,) = [node for node in model.graph.node if node.op_type == "Scaler"]
    _rename(model.graph, scaler.output[0], DESCRIBED)
    content: bytes = model.SerializeToString()
    return content


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


# --- Training ---------------------------------------------------------------------------------

COST = 0.1  # 27 columns for some 445 passengers
MOST_STEPS = 1000


def fit(data: Data, workbench: Workbench) -> Fitted:  # noqa: ARG001  # takes a second: no checkpoint
    """Fit the regression on one half of the passengers."""
    train: Split = data.splits.train
    rows: NDArray[np.generic] = train.rows
    return Fitted(model=convert(build().fit(rows, train.targets)))


# --- Recipe -----------------------------------------------------------------------------------

RECIPE = PackedRecipe(
    name="titanic",
    network="logistic regression on squares and products",
    description="Tells who survived the Titanic by the passenger list.",
    labels=LABELS,
    seed=SEED,
    load=load,
    fit=fit,
    max_error=0.2,
    target="outcome",
    max_errors=(0.2, 0.15),
    feature_output=DESCRIBED,
    limits=(
        "It repeats what happened that night, by sex and class; it explains and advises nothing.",
        "Some errors cannot be avoided: equal passengers had different fates.",
        "Missing ages are taken for the median age, which hides who was a child.",
        "The guarantee is cross-fitted: approximate.",
        "It is a worked example of `dunno pack`, and has an ONNX graph only.",
    ),
)

LECTURE = ()
