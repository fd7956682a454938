"""What training knows about a model, frozen: the content of `manifest.json`.

Nothing an operator chooses and nothing a machine allows stands here. Shapes are written without
the leading axis of rows. Shares, risks and probabilities lie in [0, 1].
"""

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from service.bundle.duplicates import DuplicateKey, refuse_duplicate_keys
from service.bundle.token_patterns import NotLinear, refuse_slow_pattern
from service.errors import ManifestInvalid

FORMAT: Literal[1] = 1
"""Version of the manifest's own layout; a reader refuses any other."""

DESCRIBING = (".md", ".png")
"""Files that only describe: a corrected card is no other policy."""

MOST_NAME_BYTES = 255
"""Longest name of a file or folder that usual file systems take."""

MOST_PATH_BYTES = 1024
"""Longest path of a file in its bundle: a quarter of what Linux takes."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Dtype = Literal["uint8", "int32", "int64", "float32", "float64"]


class Section(BaseModel):
    """A frozen part of the manifest; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureField(Section):
    """One column of a row of features."""

    name: str = Field(min_length=1)
    """Name of the column, as callers write it."""

    minimum: FiniteFloat | None = None
    """Least value that can physically be; below it the input is invalid."""

    maximum: FiniteFloat | None = None
    """Largest value that can physically be; above it the input is invalid."""

    unit: str | None = None
    """Unit of the values, for people."""

    nullable: bool = False
    """Whether a missing value is allowed; it reaches the graph as NaN."""

    typical: tuple[FiniteFloat, FiniteFloat] | None = None
    """5 % and 95 % quantile in the training data, for forms and examples."""


class FeatureInput(Section):
    """Rows of named numbers, in the order of `fields`."""

    kind: Literal["features"] = "features"
    """What a row is."""

    fields: tuple[FeatureField, ...] = Field(min_length=1)
    """The columns, in the order in which the graph takes them."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [field.name for field in self.fields]
        if len(set(names)) != len(names):
            raise ValueError("two fields have the same name")
        return self


class ImageInput(Section):
    """Pictures of a fixed shape, values 0-255."""

    kind: Literal["image"] = "image"
    """What a row is."""

    height: int = Field(gt=0, le=4096)
    """Pixels from top to bottom."""

    width: int = Field(gt=0, le=4096)
    """Pixels from left to right."""

    channels: Literal[1, 3]
    """1: grey (ITU-R 601 luma), rows of shape (height, width). 3: RGB, (height, width, 3)."""

    fit: Literal["contain", "stretch"] = "contain"
    """How a picture of another shape is fitted. `contain` keeps its proportions and fills what
    is left with the median of its border; `stretch` does not keep them."""


class TextInput(Section):
    """Texts, cut into tokens and looked up in a vocabulary.

    A row is int32, shape (max_tokens,): ids in order, 0 behind the last one, 1 for a token that
    is not in the vocabulary, 2 for its first line and so on.
    """

    kind: Literal["text"] = "text"
    """What a row is."""

    vocabulary: str = "vocabulary.txt"
    """File of the bundle with one token a line, UTF-8."""

    max_tokens: int = Field(gt=0, le=65_536)
    """Tokens beyond this many are ignored, and so are characters beyond 256 times as many, or
    beyond 65,536 if that is more."""

    lowercase: bool = True
    """Whether the text is lowercased before it is cut."""

    token_pattern: str
    """Regular expression; every match, left to right, is a token.

    Its time must be linear in the text: see `service.bundle.token_patterns`.
    """

    @model_validator(mode="after")
    def _pattern_compiles(self) -> Self:
        try:
            groups = re.compile(self.token_pattern).groups
        except re.error as error:
            raise ValueError(f"token_pattern is no regular expression: {error}") from error
        if groups:
            raise ValueError("token_pattern has a capturing group; write (?:...)")
        try:
            refuse_slow_pattern(self.token_pattern)
        except NotLinear as error:
            raise ValueError(f"token_pattern {self.token_pattern!r} {error}") from None
        return self


Input = Annotated[FeatureInput | ImageInput | TextInput, Field(discriminator="kind")]


class File(Section):
    """A file of the bundle, by its content."""

    sha256: Sha256
    """Digest of the content, checked before anything of it is read."""

    size_bytes: Count
    """Length of the content."""


class Tensor(Section):
    """An input or output of the graph."""

    name: str
    """Its name in the graph."""

    dtype: Dtype
    """Type of its numbers."""

    shape: tuple[int, ...]
    """Axes behind the rows."""


class Graph(Section):
    """What the exported graph takes and returns, the same for every runtime."""

    input: Tensor
    """The only input: the rows."""

    outputs: tuple[Tensor, ...]
    """`logits` (rows, labels) and, if the model has any, `novelty_scores` (rows, scores)."""


class TemperatureScaling(Section):
    """Probabilities are softmax(logits / temperature). Guo et al. 2017, section 4.2."""

    kind: Literal["temperature"] = "temperature"
    """Which map it is."""

    temperature: Positive
    """Above 1 the network was too sure of itself, below 1 not sure enough."""

    split: str
    """Rows that it was fitted on."""

    n: Count
    """How many these are."""


class PowerMap(Section):
    """P(label 1) is sigmoid(a * sign(z) * |z|**gamma + b), z the second logit less the first."""

    kind: Literal["power"] = "power"
    """Which map it is."""

    a: Positive
    """Slope."""

    gamma: Positive
    """Curvature; 1 makes it Platt's map."""

    b: FiniteFloat
    """Offset."""

    split: str
    """Rows that it was fitted on."""

    n: Count
    """How many these are."""


Calibration = Annotated[TemperatureScaling | PowerMap, Field(discriminator="kind")]


class TailTable(Section):
    """Right tail of a score on familiar rows: P(score >= values[i]) = tails[i]."""

    values: tuple[FiniteFloat, ...] = Field(min_length=2)
    """Ascending."""

    tails: tuple[Share, ...] = Field(min_length=2)
    """Descending, from 1 to 1 / (n + 1); never 0."""

    @model_validator(mode="after")
    def _is_a_tail(self) -> Self:
        if len(self.values) != len(self.tails):
            raise ValueError("values and tails differ in length")
        if sorted(self.values) != list(self.values):
            raise ValueError("values must ascend")
        if sorted(self.tails, reverse=True) != list(self.tails) or self.tails[-1] <= 0:
            raise ValueError("tails must descend and stay above 0")
        return self


class Novelty(Section):
    """How novelty scores become one p-value: each its tail, then Fisher's sum and its tail."""

    names: tuple[str, ...] = Field(min_length=1)
    """What each column of `novelty_scores` measures."""

    tables: tuple[TailTable, ...]
    """One for each score, in the same order."""

    combined: TailTable
    """Tail of Fisher's -sum(log p); corrects for scores that depend on each other."""

    split: str
    """Familiar rows that the tables were counted on."""

    n: Count
    """How many these are."""


class Conformal(Section):
    """Class-conditional split conformal sets: label y is a candidate if 1 - p_y <= limits[y]."""

    level: Share
    """Share of rows of each label whose set holds that label."""

    limits: tuple[Share, ...]
    """One for each label, in the order of the labels."""

    split: str
    """Rows that the limits were found on."""

    n: Count
    """How many these are."""


class CertifiedRow(Section):
    """Answer above `threshold` and, with the policy's confidence, at most `max_error` are wrong."""

    max_error: Share
    """Most of the answers that may be wrong, as a share."""

    threshold: Share
    """Least confidence to answer at this risk."""

    coverage: Share
    """Share of the calibration rows that are answered."""

    n: Count
    """Calibration rows that are answered."""

    errors: Count
    """Of these, how many are wrong."""


class Policy(Section):
    """When to answer.

    With probability `confidence` over the draw of the calibration split, among inputs like those
    of the calibrated mixture, at most `max_error` of the answered ones are wrong; for all rows of
    the table at once. Learn-then-Test with a fixed sequence: Angelopoulos et al. 2021.
    """

    max_error: Share | None
    """Risk of the default row of `table`; None: nothing could be certified."""

    threshold: Share
    """Least confidence to answer by default."""

    novelty_alpha: Share
    """Least novelty p-value to answer; 0 turns the gate off."""

    ambiguity_mass: Share = 0.95
    """Probability that the two best labels must share for the reason `ambiguous`."""

    table: tuple[CertifiedRow, ...] = ()
    """Strict to loose; a risk that could not be certified is absent."""

    status: Literal["certified", "cross_fitted", "uncertified"]
    """`cross_fitted`: scores come from the folds of a cross-validation; then it is approximate."""

    confidence: Share = 0.95
    """Probability with which the guarantee holds."""

    split: str
    """Rows that the table was certified on."""

    n: Count
    """How many these are."""

    mixture: str
    """What the calibration rows are, in words: the guarantee is about inputs like these."""

    @model_validator(mode="after")
    def _default_row_is_in_table(self) -> Self:
        if self.max_error is None:
            if self.status != "uncertified":
                raise ValueError("without a certified row the status must be uncertified")
            return self
        thresholds = {row.max_error: row.threshold for row in self.table}
        if thresholds.get(self.max_error) != self.threshold:
            raise ValueError("max_error and threshold are no row of the table")
        return self


class Measure(Section):
    """A measured number with its 95 % interval."""

    value: FiniteFloat
    """What was measured."""

    low: FiniteFloat
    """Lower end of the interval."""

    high: FiniteFloat
    """Upper end of the interval."""


class Interval(Section):
    """A 95 % interval."""

    low: FiniteFloat
    """Lower end."""

    high: FiniteFloat
    """Upper end."""


class Intervals(Section):
    """Of the numbers of an evaluation that are no shares of rows, by bootstrap."""

    nll: Interval
    """Of the negative log-likelihood."""

    ece: Interval
    """Of the calibration error."""

    aurc: Interval
    """Of the area under the risk-coverage curve."""


class Reasons(Section):
    """Shares of rows by the default policy's verdict: an answer, or a reason for none; sum to 1."""

    answer: Share
    """Share that is answered."""

    out_of_distribution: Share
    """Share that is unlike the training data."""

    ambiguous: Share
    """Share whose two best labels are both likely."""

    low_confidence: Share
    """Share that is not sure enough for another reason."""


class RealisedRow(Section):
    """What a certified row did on the test split."""

    max_error: Share
    """Which certified row it is."""

    coverage: Measure
    """Share of the test rows that it answers."""

    risk: Measure
    """Error among these."""


class Condition(Section):
    """The test split under one served condition (inverted, low contrast, ...)."""

    name: str
    """What was done to the rows."""

    n: Count
    """Rows that were measured."""

    accuracy: Measure
    """Share whose best label is right, answered or not."""

    ece: Share
    """Expected calibration error."""

    ece_floor: Share | None = None
    """What a perfectly calibrated model of the same confidences would have."""

    answered: Measure
    """Share answered by the default policy."""

    risk: Measure
    """Error among these."""

    reasons: Reasons | None = None
    """What became of the rows."""


class OutlierFamily(Section):
    """Inputs that are none of the labels, and how many the default policy answers all the same."""

    name: str
    """What the inputs are."""

    n: Count
    """Inputs that were measured."""

    answered: Measure
    """Share that is answered all the same; the smaller, the better."""

    reasons: Reasons | None = None
    """What became of the inputs."""

    both_labels: Measure | None = None
    """Share whose candidates hold both labels, where each row is a mean of rows of two."""


class Baseline(Section):
    """Another network on the same test split, such as the one that lectures show."""

    name: str
    """Which network it is."""

    accuracy: Measure
    """Share whose best label is right."""

    nll: FiniteFloat
    """Mean negative log-likelihood, nats."""

    ece: Share
    """Expected calibration error."""

    aurc: Share
    """Area under the risk-coverage curve."""

    conditions: dict[str, Share] = {}
    """Accuracy under each served condition."""


class Evaluation(Section):
    """Numbers on the test split, which chose nothing."""

    split: str
    """Rows that were measured."""

    n: Count
    """How many these are."""

    accuracy: Measure
    """Share whose best label is right, answered or not."""

    nll: FiniteFloat
    """Mean negative log-likelihood, nats."""

    ece: Share
    """Expected calibration error, 15 bins of equal mass."""

    ece_floor: Share
    """Mean of the same on simulated targets that follow the probabilities exactly."""

    aurc: Share
    """Area under the risk-coverage curve."""

    risk_coverage: tuple[tuple[Share, Share], ...]
    """(coverage, risk), at most 101 points."""

    confusion: tuple[tuple[int, ...], ...]
    """Rows: true label; columns: best label."""

    table: tuple[RealisedRow, ...]
    """What each certified row did."""

    intervals: Intervals | None = None
    """How sure the other numbers are."""

    reasons: Reasons | None = None
    """What became of the rows."""

    conditions: tuple[Condition, ...] = ()
    """The same rows as they may arrive."""

    outliers: tuple[OutlierFamily, ...] = ()
    """Inputs that have no label."""

    baselines: tuple[Baseline, ...] = ()
    """Other networks, for comparison."""

    facts: dict[str, str] = {}
    """Further lines for the card, such as the number of parameters."""


class Histogram(Section):
    """Shares of the reference rows between neighbouring edges."""

    edges: tuple[FiniteFloat, ...]
    """Ascending; one more than there are shares."""

    shares: tuple[Share, ...]
    """One for each pair of neighbouring edges; they sum to 1."""


class Reference(Section):
    """What traffic looks like when nothing drifts, from the calibration split."""

    confidence: Histogram
    """Of the best label."""

    novelty_p: Histogram | None
    """Of the novelty p-values; null where the model has no novelty scores."""

    labels: dict[str, Share]
    """Share of the rows with each best label."""

    answered: Share
    """Share that the default policy answers."""


class Agreement(Section):
    """How often a variant gives the verdict of the graph itself, on rows that did not shape it."""

    rows: str
    """What the rows are, in words."""

    n: Count
    """How many these are."""

    identical: Share
    """Share of them with the same verdict."""


class Variant(Section):
    """The same network in other numbers, such as int8: quicker, and hardly ever of another mind."""

    file: str
    """File of the bundle with the graph, for ONNX Runtime."""

    tolerance: Positive
    """Largest difference of a golden output from what the graph itself returns."""

    agreements: tuple[Agreement, ...] = Field(min_length=1)
    """How often it is of the same mind, on several kinds of rows."""

    made: str
    """How it was made, in words."""


class Provenance(Section):
    """Where the bundle comes from."""

    recipe: str
    """Name of the recipe that made it; of a model that was packed, its own."""

    network: str
    """What the network is, in words; of a model that was packed, its file."""

    seed: int
    """Of every random choice."""

    data_sha256: dict[str, Sha256]
    """Digest of each file of data."""

    libraries: dict[str, str]
    """Version of each library that had a hand in it."""

    commit: str
    """Of the repository, if it was made in one."""

    created: str
    """UTC, ISO 8601."""

    seconds: Positive
    """Wall time of the training run on `machine`."""

    machine: str
    """Where it was made, in words."""


class Manifest(Section):
    """All facts about one version of one model."""

    format: Literal[1] = FORMAT
    """Version of the manifest's own layout; a reader refuses any other."""

    name: Name
    """Name of the model; the folder above the version's."""

    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")]
    """Name of the version's folder; the largest is the newest."""

    task: Literal["classification"] = "classification"
    """What the model does."""

    description: str
    """One sentence for people."""

    labels: tuple[str, ...] = Field(min_length=2)
    """Names of the classes, in the order of the graph's logits."""

    input: Input
    """What a row is, and how payloads become rows."""

    files: dict[str, File]
    """Every file of the bundle but this one and its signature, by its path."""

    graph: Graph
    """Inputs and outputs of `model.onnx` and of the SavedModel."""

    calibration: Calibration
    """How logits become probabilities."""

    novelty: Novelty | None
    """How novelty scores become a p-value; null: the graph has none."""

    conformal: Conformal | None
    """Which labels are candidates; null: those that share almost all probability."""

    policy: Policy
    """When to answer."""

    evaluation: Evaluation | None = None
    """What was measured on rows that chose nothing; null: nothing was."""

    reference: Reference | None = None
    """What drift is measured against; null: it is not."""

    variants: dict[Name, Variant] = {}
    """Further graphs that an operator may choose instead of `model.onnx`, by name."""

    provenance: Provenance
    """Where it comes from."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        _check_labels(self)
        _check_files(self)
        _check_graph(self)
        return self

    @property
    def policy_id(self) -> str:
        """Name of what decides: changes with graph, calibration, novelty, sets or policy."""
        return self.policy_id_of(None)

    def policy_id_of(self, variant: str | None) -> str:
        """Return the same for a variant; one that is not served changes no name.

        Args:
            variant: one of `variants`; None: the graph itself.
        """
        deciding = {"calibration", "novelty", "conformal", "policy", "labels"}
        idle = {each.file for name, each in self.variants.items() if name != variant}
        content = json.dumps(
            {
                **self.model_dump(mode="json", include=deciding),
                "files": {
                    name: file.sha256
                    for name, file in self.files.items()
                    if not name.endswith(DESCRIBING) and name not in idle
                },
            },
            sort_keys=True,
        )
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"


def _check_labels(manifest: Manifest) -> None:
    if len(set(manifest.labels)) != len(manifest.labels):
        raise ValueError("two labels have the same name")
    if manifest.calibration.kind == "power" and len(manifest.labels) != 2:
        raise ValueError("a power map calibrates two labels")
    if manifest.conformal and len(manifest.conformal.limits) != len(manifest.labels):
        raise ValueError("conformal needs one limit for each label")


def _check_files(manifest: Manifest) -> None:
    for name in manifest.files:
        _check_file_name(name)
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
            raise ValueError(f"file name {name!r} leaves the bundle")
    if manifest.input.kind == "text" and manifest.input.vocabulary not in manifest.files:
        raise ValueError(f"the vocabulary {manifest.input.vocabulary!r} is not among the files")
    for name, variant in manifest.variants.items():
        if variant.file not in manifest.files:
            raise ValueError(f"the file {variant.file!r} of variant {name} is not among the files")


def _check_file_name(name: str) -> None:
    shown = json.dumps(name[:MOST_NAME_BYTES])
    if not name.isprintable():
        raise ValueError(f"file name {shown} has a character that cannot be printed")
    if any(len(part.encode()) > MOST_NAME_BYTES for part in name.split("/")):
        raise ValueError(f"file name {shown}... has more than {MOST_NAME_BYTES} bytes")
    if len(name.encode()) > MOST_PATH_BYTES:
        raise ValueError(f"file name {shown}... has more than {MOST_PATH_BYTES:,} bytes")


def _check_graph(manifest: Manifest) -> None:
    shapes = {tensor.name: tensor.shape for tensor in manifest.graph.outputs}
    if shapes.get("logits") != (len(manifest.labels),):
        raise ValueError("the graph must return logits of shape (rows, labels)")
    scores = (len(manifest.novelty.names),) if manifest.novelty else None
    if shapes.get("novelty_scores") != scores:
        raise ValueError("novelty must have one name for each of the graph's novelty_scores")
    if manifest.novelty and len(manifest.novelty.tables) != len(manifest.novelty.names):
        raise ValueError("novelty must have one table for each score")
    expected = row_shape(manifest.input)
    if manifest.graph.input.shape != expected:
        raise ValueError(f"the graph takes {manifest.graph.input.shape}, the input is {expected}")


def row_shape(declared: FeatureInput | ImageInput | TextInput) -> tuple[int, ...]:
    """Return the shape of one row, without the axis of rows."""
    if isinstance(declared, FeatureInput):
        return (len(declared.fields),)
    if isinstance(declared, TextInput):
        return (declared.max_tokens,)
    colour = (3,) if declared.channels == 3 else ()
    return (declared.height, declared.width, *colour)


def parse_manifest(content: bytes, place: str) -> Manifest:
    """Return the manifest written in `content`.

    Raises:
        ManifestInvalid: naming `place` and the first thing that is wrong.
    """
    try:
        manifest = Manifest.model_validate_json(content)
        refuse_duplicate_keys(content)
    except DuplicateKey as error:
        raise ManifestInvalid(f"{place}: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        message = f"{place}: {where}: {first['msg']}"
        raise ManifestInvalid(message) from None
    return manifest
