"""Who gives the verdicts: the model in this process, or a server that runs somewhere."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from service.api.options import NO_OPTIONS
from service.api.schemas import encode_row
from service.decision import Terms
from service.errors import (
    ClientError,
    DunnoError,
    InputInvalid,
    PayloadTooLarge,
    RunFailed,
    code_of,
    install_line,
)
from service.inputs import Decoded, Payload
from service.inputs.payload import UNBOUNDED
from service.offline.parts import Part
from service.prediction import Answer, Predictor, load_catalogue
from service.settings import Settings, usable_cores
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from dunno_client import Answer as RemoteAnswer

CONNECTIONS = 8
PATIENCE_S = 300.0
MOST_RETRIES = 1000
"""A busy server is asked again until its patience, or ours, ends."""

BATCH_ROWS = 256
"""Maximum rows of a batch unless DUNNO_MAX_BATCH_ROWS is set: offline, throughput counts."""

ASKED = ("max_error", "min_confidence", "top_k", "version", "alias")
"""What an address may ask for: nothing that changes what a row of the answer is."""

Given = TypeVar("Given")
Done = TypeVar("Done")


class OfflineFailed(Exception):
    """There is no use in going on; the message says what to do."""


class Found(NamedTuple):
    """The answers to a part's rows, each as `POST /predict/{model}` has it in `predictions`."""

    part: Part
    rows: list[dict[str, Any]]
    is_about_file: bool = False
    """Whether the only row is an error that all other rows of its file would have as well."""


class Engine(Protocol):
    """Gives verdicts on parts, once, in their order, a bounded number of them on the way."""

    @property
    def kind(self) -> str:
        """What its rows are: `features`, `image` or `text`."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the model's outputs."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features; none of them for pictures and texts."""
        ...

    def verdicts(self, parts: Iterable[Part]) -> Iterator[Found]:
        """Yield the answers to each part; one that was refused as a whole comes in two halves.

        Raises:
            OfflineFailed: if no further part could be answered.
        """
        ...


def open_engine(model: str, settings: Settings, key: str | None, **limits: float | None) -> Engine:
    """Return who answers for a model: its name, or its address on a server.

    Args:
        model: `name`, or `http://host:port/predict/name?options`.
        settings: where bundles are, and what a row may be.
        key: shown to the server.
        limits: `max_error` and `min_confidence`, as callers ask for them.

    Raises:
        OfflineFailed: if an address is not as expected, or nobody answers there.
        BundleError, ClientError: if a model in `models` cannot be used so.
    """
    if model.lower().startswith(("http://", "https://")):
        return _remote(model, key, limits)
    return load_local(model, settings, **limits)


def load_local(
    model: str,
    settings: Settings,
    max_error: float | None = None,
    min_confidence: float | None = None,
) -> "Local":
    """Return a model of the catalogue, loaded, checked and warm; the default version of a name.

    Raises:
        BundleError: if the bundle or the catalogue cannot be used.
        ClientError: if there is no such model, or no such risk is certified.
    """
    unbounded = ("max_request_pixels", "max_request_tokens", "max_row_errors")
    changes = dict.fromkeys(unbounded, UNBOUNDED)
    if "max_batch_rows" not in settings.model_fields_set:
        changes["max_batch_rows"] = min(BATCH_ROWS, settings.max_queue_rows)
    settings = settings.model_copy(update=changes)
    predictor = load_catalogue(settings, Metrics(), only=model).look(model)
    return Local(predictor, predictor.judge.terms(max_error, min_confidence))


class Local:
    """The model in this process: payloads are decoded by threads, rows run in full batches."""

    def __init__(self, predictor: Predictor, terms: Terms) -> None:
        declared = predictor.manifest.input
        self.kind = declared.kind
        self.labels = predictor.manifest.labels
        fields = getattr(declared, "fields", ())
        self.features = tuple(field.name for field in fields)
        self.required = tuple(field.name for field in fields if not field.nullable)
        self._predictor = predictor
        self._terms = terms

    def verdicts(self, parts: Iterable[Part]) -> Iterator[Found]:
        """Yield the answers to each part; see `Engine.verdicts`."""
        for batch in self._batches(in_order(max(1, int(usable_cores())), self._decode, parts)):
            yield from self._answer(batch)

    def verdicts_on(self, payload: Payload) -> list[dict[str, Any]]:
        """Return the answers to one payload's rows; safe to call from several threads.

        A row that cannot be read, or that a run fails on, has its error in its place, even if no
        other row is left.

        Raises:
            ClientError: if nothing tells which rows it has.
        """
        decoded = self._predictor.decoder.decode(payload)
        return self._encoded(decoded.in_place(iter(self._run(decoded.rows))))

    def _decode(self, part: Part) -> "list[tuple[Part, Decoded | ClientError]]":
        try:
            return [(part, self._predictor.decoder.decode(part.payload()))]
        except ClientError as error:
            halves = part.halves() if is_of_rows(error) else None
            if halves is None:
                return [(part, error)]
            return [pair for half in halves for pair in self._decode(half)]

    def _batches(
        self, found: "Iterable[list[tuple[Part, Decoded | ClientError]]]"
    ) -> "Iterator[list[tuple[Part, Decoded | ClientError]]]":
        """Yield as many parts at once as fill a batch: pictures come one by one."""
        waiting: list[tuple[Part, Decoded | ClientError]] = []
        rows = 0
        for pairs in found:
            for pair in pairs:
                waiting.append(pair)
                rows += len(pair[1].rows) if isinstance(pair[1], Decoded) else 1
                if not self._predictor.fits_a_batch(rows + 1):
                    yield waiting
                    waiting, rows = [], 0
        yield waiting

    def _answer(self, batch: "Sequence[tuple[Part, Decoded | ClientError]]") -> Iterator[Found]:
        readable = [found.rows for _, found in batch if isinstance(found, Decoded)]
        answers: Iterator[Answer | DunnoError] = iter(())
        if readable:
            answers = iter(self._run(np.concatenate(readable)))
        for part, found in batch:
            if isinstance(found, ClientError):
                is_about_file = not is_of_rows(found)
                yield Found(part, _moved(self._encoded([found]), part), is_about_file)
            else:
                rows = found.in_place(answers)
                yield Found(part, _moved(self._encoded(rows), part))

    def _run(self, rows: NDArray[np.generic]) -> list[Answer | DunnoError]:
        """Return the answers to rows; if a run fails, only the rows are lost that make it fail."""
        try:
            return self._predictor.answer_now(rows, self._terms)
        except Exception as error:  # noqa: BLE001  runtimes raise what they like
            if len(rows) == 1:
                return [RunFailed(f"the model failed on this row ({type(error).__name__})")]
            return [answer for row in range(len(rows)) for answer in self._run(rows[row : row + 1])]

    def _encoded(self, rows: "Sequence[Answer | DunnoError]") -> list[dict[str, Any]]:
        return [encode_row(row, self._predictor, NO_OPTIONS) for row in rows]


class Remote:
    """A model on a server, asked over a few connections at the same time."""

    def __init__(self, url: str, key: str | None, model: str, options: dict[str, Any]) -> None:
        try:
            import dunno_client  # noqa: PLC0415  of the extra `client`
        except ModuleNotFoundError as error:
            message = f"asking a server needs the package {error.name!r}"
            raise OfflineFailed(f"{message}; {install_line('client')}") from None
        self._errors = dunno_client
        try:
            first = dunno_client.Dunno(url, key)
        except ValueError as error:
            raise OfflineFailed(str(error)) from None
        with first as dunno:
            found = self._asked(lambda: dunno.model(model))
        self.kind = found.kind
        self.labels = found.labels
        fields = found.details["input"].get("fields", ())
        self.features = tuple(field["name"] for field in fields)
        self._dunno = dunno_client.Dunno(url, key, deadline_s=PATIENCE_S, retries=MOST_RETRIES)
        self._model = model
        self._options = options

    def verdicts(self, parts: Iterable[Part]) -> Iterator[Found]:
        """Yield the answers to each part; see `Engine.verdicts`."""
        with self._dunno:
            for found in in_order(CONNECTIONS, self._ask, parts):
                yield from found

    def _ask(self, part: Part) -> list[Found]:
        try:
            payload = part.payload()
        except ClientError as error:
            return self._refused(part, error)
        try:
            answer = self._asked(
                lambda: self._dunno.predict_body(
                    self._model, payload.body, payload.media_type, **self._options
                )
            )
        except self._errors.RequestRefused as error:
            return self._refused(part, error)
        return [Found(part, _moved(_rows_of(answer), part))]

    def _refused(self, part: Part, error: Any) -> list[Found]:
        is_local = isinstance(error, ClientError)
        of_rows = is_of_rows(error) if is_local else _is_said_of_rows(error)
        halves = part.halves() if of_rows else None
        if halves is not None:
            return [found for half in halves for found in self._ask(half)]
        code = code_of(error) if is_local else error.code
        detail = str(error) if is_local else error.detail
        rows = [{"error": {"code": code, "detail": detail}}]
        return [Found(part, _moved(rows, part), not of_rows)]

    def _asked(self, ask: Callable[[], Done]) -> Done:
        """Return what the server says; a payload that it refuses is raised as it is."""
        try:
            return ask()
        except (self._errors.KeyRefused, self._errors.NotFound) as error:
            raise OfflineFailed(error.detail) from None
        except self._errors.RequestRefused as error:
            if error.status == 422:
                raise OfflineFailed(error.detail) from None
            raise
        except self._errors.DunnoError as error:
            raise OfflineFailed(f"{error.detail} ({error.code})") from None


def is_of_rows(error: ClientError) -> bool:
    """Tell whether a payload of fewer rows might be read."""
    if isinstance(error, InputInvalid):
        return error.place != "header"
    return isinstance(error, PayloadTooLarge)


def in_order(threads: int, work: Callable[[Given], Done], given: Iterable[Given]) -> Iterator[Done]:
    """Yield what threads make of each thing, in its order, with two for each thread on the way.

    Whoever stops waits for none of them, unlike with an executor: a server may be silent for long.
    """
    waiting: deque[Future[Done]] = deque()
    tasks: SimpleQueue[tuple[Future[Done], Given] | None] = SimpleQueue()
    for _ in range(threads):
        Thread(target=_work_off, args=(tasks, work), name="dunno-offline", daemon=True).start()
    try:
        for each in given:
            waiting.append(Future())
            tasks.put((waiting[-1], each))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(threads):
            tasks.put(None)


def _work_off(
    tasks: "SimpleQueue[tuple[Future[Done], Given] | None]", work: Callable[[Given], Done]
) -> None:
    while (task := tasks.get()) is not None:
        future, each = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work(each))
        except Exception as error:  # noqa: BLE001  raised where the result is taken
            future.set_exception(error)


def _remote(url: str, key: str | None, limits: dict[str, float | None]) -> Remote:
    try:
        parts = urlsplit(url)
        is_there = bool(parts.hostname) and parts.port != 0  # raises if it is no number
    except ValueError:
        is_there = False
    base, _, model = parts.path.rstrip("/").rpartition("/predict/") if is_there else ("", "", "")
    if not model or "/" in model:
        raise OfflineFailed(f"{url}: expected an address such as http://host:8000/predict/model")
    options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = options.keys() - set(ASKED)
    if unknown:
        raise OfflineFailed(f"{url}: expected only {', '.join(ASKED)}, got {min(unknown)!r}")
    options |= {name: value for name, value in limits.items() if value is not None}
    return Remote(f"{parts.scheme}://{parts.netloc}{base}", key, unquote(model), options)


def _is_said_of_rows(error: Any) -> bool:
    """Tell the same of what a server said."""
    return error.status in (400, 413) and not error.detail.startswith("header: ")


def _rows_of(answer: "RemoteAnswer") -> list[dict[str, Any]]:
    rows = []
    for prediction in answer.predictions:
        content = asdict(prediction)
        rows.append({"error": content} if "verdict" not in content else content)
    return rows


def _moved(rows: list[dict[str, Any]], part: Part) -> list[dict[str, Any]]:
    for row in rows:
        error = row.get("error")
        if error is not None:
            error["detail"] = part.in_file(error["detail"])
    return rows
