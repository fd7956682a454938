"""One version of one model, ready to answer: decode, submit, run, decide."""

import asyncio
import contextlib
import io
import itertools
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.batching import Batcher, BatchLimits, Delivery, Job, Lane, Receiver
from service.bundle import Bundle, Manifest
from service.bundle.manifest import Reference
from service.decision import Answered, Floor, Judge, Row, Terms, Verdict
from service.errors import BundleCorrupt, DunnoError, QueueFull, RunFailed, reason_of
from service.inputs import Decoded, Decoder, Payload
from service.prediction.decoding import DecoderPool
from service.prediction.offloading import offload, offloader
from service.runtimes import Outputs, Runtime
from service.telemetry.drift import Drift
from service.telemetry.metrics import ModelMetrics, RowNote

GOLDEN = "golden.npz"
GOLDEN_TOLERANCE = 1e-3
"""Largest difference of a golden logit, relative or absolute: other processors round elsewhere,
other weights are further off by orders of magnitude."""


Copy = Callable[[NDArray[np.generic], Sequence[Row]], None]
"""Takes rows that were run, and what was found of each."""


class Answer(NamedTuple):
    """The answer to one row."""

    verdict: Verdict
    row: Row


class Stages(NamedTuple):
    """Where the time of a request went, seconds."""

    decode_s: float
    queue_s: float
    run_s: float
    decide_s: float


class Prediction(NamedTuple):
    """The answers to the rows of one request, in order; an error stands in its row's place."""

    rows: list[Answer | DunnoError]
    terms: Terms
    stages: Stages
    ignored_columns: tuple[str, ...]
    outcome: str
    """How the request is counted: `answered`, `unknown` or `mixed`."""


class _Golden(NamedTuple):
    rows: NDArray[np.generic]
    logits: NDArray[np.float32]
    novelty_scores: NDArray[np.float32]


class Predictor:
    """Answers requests for one version of one model; everything about it comes from its bundle."""

    def __init__(  # noqa: PLR0913  what a predictor is made of, put together in the catalogue
        self,
        name: str,
        bundle: Bundle,
        *,
        runtime: Runtime,
        runtime_name: str,
        decoder: Decoder,
        floor: Floor,
        limits: BatchLimits,
        metrics: ModelMetrics,
        more_instances: Sequence[Runtime] = (),
        variant: str | None = None,
        reload: Callable[[], Runtime] | None = None,
    ) -> None:
        self.name = name
        self.manifest: Manifest = bundle.manifest
        self.path: Path = bundle.path
        self._instances: tuple[Runtime, ...] = (runtime, *more_instances)
        self.runtime_name = runtime_name
        self.decoder = decoder
        self.floor = floor
        self.judge = Judge(bundle.manifest, floor, variant)
        self.variant = variant
        self.metrics = metrics
        self.copy: Copy | None = None
        """Who gets a copy of all rows once their answer is there."""
        self._holders = 0
        self._is_unheld = asyncio.Event()
        self._is_unheld.set()
        self._golden = _read_golden(bundle)
        self._limits = limits
        # By number: the batcher keeps no instance alive that was freed here.
        runs = [partial(self.assess, instance=number) for number in range(self.instances)]
        self._reload = reload
        care = None if reload is None else self
        self._batcher: Batcher[list[Row]] = Batcher(name, runs, limits, metrics, care=care)

    @property
    def is_ready(self) -> bool:
        """Whether rows can be submitted."""
        return self._batcher.is_running

    @property
    def runtime(self) -> Runtime:
        """The first of its instances."""
        return self._instances[0]

    @property
    def instances(self) -> int:
        """How many batches it runs at the same time."""
        return len(self._instances)

    @property
    def golden_rows(self) -> NDArray[np.generic]:
        """Rows whose outputs training saw, shape (rows, *input)."""
        return self._golden.rows

    @property
    def golden_verdicts(self) -> list[Verdict]:
        """What the policy in force says of the golden rows, one a row."""
        judge = self.judge
        return judge.decide(judge.assess(*self._golden[1:]), judge.default_terms)

    @property
    def golden_answers(self) -> list[Answer]:
        """The same with the numbers that each verdict comes from."""
        judge = self.judge
        rows = judge.assess_rows(*self._golden[1:])
        return [Answer(judge.verdict(row, judge.default_terms), row) for row in rows]

    def check_golden_rows(self, runtime: Runtime | None = None) -> None:
        """Run the golden rows and compare outputs and verdicts with what training saw.

        Args:
            runtime: an instance; the first one unless told.

        Raises:
            BundleCorrupt: if a logit, a score or a verdict differs.
        """
        place = self.path / GOLDEN
        golden = self._golden
        outputs = (runtime or self.runtime).run(golden.rows)
        tolerance = self._golden_tolerance
        for got, expected in zip(outputs, golden[1:], strict=True):
            if got.shape != expected.shape or not np.allclose(
                got, expected, rtol=GOLDEN_TOLERANCE, atol=tolerance
            ):
                message = f"{place}: the graph returns other outputs than in training"
                raise BundleCorrupt(message)
        terms = self.judge.default_terms
        verdicts = self.judge.decide(self.judge.assess(*outputs), terms)
        if verdicts != self.golden_verdicts:
            raise BundleCorrupt(f"{place}: a golden verdict differs")

    def check_instance(self, number: int) -> None:
        """Raise if an instance does not give the golden outputs any more."""
        self.check_golden_rows(self._instances[number])

    def rebuild_instance(self, number: int) -> None:
        """Put a new runtime in the place of one that was lost; raise if that cannot be done."""
        assert self._reload is not None  # noqa: S101  or nobody would look after instances
        runtime = self._reload()
        self.check_golden_rows(runtime)
        if isinstance(self._instances[number], _NoRuntime):
            return  # retired meanwhile
        instances = list(self._instances)
        instances[number] = runtime
        self._instances = tuple(instances)

    @property
    def _golden_tolerance(self) -> float:
        """Largest difference of a golden output: a variant's is as large as it was when made."""
        if self.variant is None:
            return GOLDEN_TOLERANCE
        return self.manifest.variants[self.variant].tolerance

    def warm(self) -> None:
        """Run every batch size once, so that no caller pays for a first time.

        How long the largest takes decides where runs happen at first.
        """
        rows = self._golden.rows
        sizes = self._limits.warm_rows()
        for length in sizes:
            batch = np.resize(rows, (length, *rows.shape[1:]))
            for instance in range(self.instances):
                self.assess(batch, instance)
        started_s = time.perf_counter()
        self.assess(batch)
        self._batcher.cost.learn(sizes[-1], time.perf_counter() - started_s)

    @property
    def is_quick(self) -> bool:
        """Whether small runs happen on the event loop."""
        return self._batcher.cost.is_quick

    def start(self) -> None:
        """Begin to take rows, on the running event loop, and to be measured."""
        self._batcher.start()
        self.describe("available")
        self.metrics.threshold.set(self.judge.default_terms.min_confidence)
        if self.manifest.reference is not None:
            self.metrics.watch_drift(_drift(self.manifest.reference, self.manifest.labels))

    def describe(self, state: str) -> None:
        """Tell in the metrics what is loaded, and whether it answers."""
        digest = self.judge.policy_id.rpartition("-")[2]
        self.metrics.describe(self.runtime_name, self.runtime.device, digest)
        self.metrics.set_state(state)

    def hold(self) -> None:
        """Keep it from being retired until `release`, while a request is on its way to `submit`."""
        self._holders += 1
        self._is_unheld.clear()

    def release(self) -> None:
        """Let go after `hold`."""
        self._holders -= 1
        if not self._holders:
            self._is_unheld.set()

    async def retire(self, timeout_s: float) -> None:
        """Answer whoever holds it and what waits, in at most `timeout_s`; then free its graph."""
        until_s = time.monotonic() + timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._is_unheld.wait()
        await self.close(max(0.0, until_s - time.monotonic()))
        # A connection that asks for nothing more remembers who answered last.
        self._instances = (_NoRuntime(self.runtime),) * self.instances

    async def close(self, timeout_s: float) -> None:
        """Finish what waits and stop."""
        await self._batcher.close(timeout_s)

    async def predict(
        self, payload: Payload, terms: Terms, deadline_s: float, decoders: DecoderPool
    ) -> Prediction:
        """Return a verdict, or an error, for each row of a payload.

        Args:
            payload: the request's body.
            terms: from `judge.terms`.
            deadline_s: `time.monotonic()` after which the answer is worthless.
            decoders: where payloads are decoded that are too heavy for the event loop.

        Raises:
            ClientError: if no row could be read.
            CapacityError: if there is no room or no time.
            RunFailed: if the model failed on these rows.
        """
        started_s = time.perf_counter()
        self.look_for_room(deadline_s - time.monotonic())
        self.hold()
        try:
            decoded = await self._decode(payload, deadline_s, decoders)
            decode_s = time.perf_counter() - started_s
            return await self.predict_rows(decoded, terms, deadline_s, decode_s=decode_s)
        finally:
            self.release()

    async def predict_rows(
        self, decoded: Decoded, terms: Terms, deadline_s: float, *, decode_s: float = 0.0
    ) -> Prediction:
        """Return the same for rows that are decoded already.

        Raises:
            ClientError: if no row could be read.
            CapacityError: if there is no room or no time.
            RunFailed: if the model failed on these rows.
        """
        outputs: list[Row] = []
        queue_s = run_s = 0.0
        lane: Lane = "interactive" if self.fits_a_batch(len(decoded.rows)) else "bulk"
        number = len(decoded.rows) + len(decoded.errors)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(offloader.reserved(number))
            except QueueFull:
                self.metrics.rejections["queue_full"].inc()
                raise
            self.hold()
            stack.callback(self.release)
            # One part at a time: rows of small requests get a turn between parts of a large one.
            for part in self._parts(decoded.rows):
                delivery = await self._batcher.submit(part, deadline_s, lane)
                queue_s, run_s = queue_s + delivery.queue_s, run_s + delivery.run_s
                outputs += delivery.outputs
                if self.copy is not None:
                    # On the next turn of the loop the answer to a request of one part is written.
                    asyncio.get_running_loop().call_soon(self.copy, part, delivery.outputs)
            started_s = time.perf_counter()
            rows, outcome = await offload(
                number, lambda: self._judged(outputs, terms, decoded), deadline_s
            )
            decide_s = time.perf_counter() - started_s
        stages = Stages(decode_s, queue_s, run_s, decide_s)
        return Prediction(rows, terms, stages, decoded.ignored_columns, outcome)

    def _judged(
        self, outputs: Sequence[Row], terms: Terms, decoded: Decoded
    ) -> tuple[list[Answer | DunnoError], str]:
        """Return the answers to all rows of a request, and how it is counted."""
        rows = _in_place(self.answers(outputs, terms), decoded)
        return rows, outcome_of(rows)

    def _parts(self, rows: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
        """Yield rows as jobs: batches, several in one job where they are quick, and the rest."""
        start, most_rows = 0, self._limits.max_rows
        while start < len(rows):
            batches = min(self._batcher.bulk_rows, len(rows) - start) // most_rows
            stop = start + max(1, batches) * most_rows
            yield rows[start:stop]
            start = stop

    def predict_now(self, payload: Payload, terms: Terms) -> list[Answer | DunnoError]:
        """Return the same without a queue, in the calling thread.

        Raises:
            ClientError: if no row could be read.
            RunFailed: if the model failed on these rows.
        """
        decoded = self.decoder.decode(payload)
        return _in_place(self.answer_now(decoded.rows, terms), decoded)

    def answer_now(self, rows: NDArray[np.generic], terms: Terms) -> list[Answer | DunnoError]:
        """Return the answers to decoded rows, in the calling thread and batch by batch.

        Raises:
            RunFailed: if the model failed on these rows.
        """
        answers: list[Answer | DunnoError] = []
        for start in range(0, len(rows), self._limits.max_rows):
            part = rows[start : start + self._limits.max_rows]
            answers += self.answers(self.assess(part), terms)
        return answers

    def submit(self, rows: NDArray[np.generic], deadline_s: float, receiver: Receiver) -> Job:
        """Let decoded rows wait for the next run; `receiver` gets a `Delivery` of `Row`s.

        Args:
            rows: at most as many as a batch holds.
            deadline_s: `time.monotonic()` after which they need not run.
            receiver: told when they have run, or why they have not.

        Raises:
            CapacityError: if there is no room.
        """
        if self.copy is not None:
            receiver = _Copied(receiver, rows, self.copy)
        return self._batcher.enqueue(rows, deadline_s, receiver)

    def look_for_room(self, patience_s: float) -> None:
        """Raise if a row would be refused whose answer is worthless in so many seconds.

        Raises:
            CapacityError: if there is no room or no time.
        """
        self._batcher.look_for_room(1, patience_s)

    def expire(self, job: Job) -> None:
        """Tell whoever waits for rows that their deadline has passed."""
        self._batcher.expire(job)

    def withdraw(self, job: Job) -> None:
        """Take rows out of the queue that nobody waits for any more."""
        self._batcher.withdraw(job)

    def fits_a_batch(self, rows: int) -> bool:
        """Whether so many rows can run at once."""
        return 0 < rows <= self._limits.max_rows

    def assess(self, rows: NDArray[np.generic], instance: int = 0) -> list[Row]:
        """Run the graph on a batch, by the first instance unless told, and assess its outputs.

        Raises:
            RunFailed: if the outputs are not one row for each of `rows`.
        """
        most_rows = self._limits.max_rows
        if len(rows) > most_rows:
            starts = range(0, len(rows), most_rows)
            parts = (self.assess(rows[at : at + most_rows], instance) for at in starts)
            return list(itertools.chain.from_iterable(parts))
        outputs = self._instances[instance].run(rows)
        expected = (len(rows), len(self.manifest.labels))
        if outputs.logits.shape != expected or len(outputs.novelty_scores) != len(rows):
            raise RunFailed(f"logits have shape {outputs.logits.shape}, not {expected}")
        return self.judge.assess_rows(*outputs)

    def answers(self, rows: Sequence[Row], terms: Terms) -> list[Answer | DunnoError]:
        """Return the answers to assessed rows, and count them.

        A row for which the graph returned NaN or infinity gets a failure in its place.
        """
        answers: list[Answer | DunnoError] = []
        notes: list[RowNote] = []
        for row in rows:
            if row.is_finite:
                verdict = self.judge.verdict(row, terms)
                answers.append(Answer(verdict, row))
                notes.append((verdict.reason, row.best, row.confidence, row.novelty_p))
            else:
                answers.append(RunFailed("the model returned NaN or infinity for this row"))
        self.metrics.count_rows(notes)
        return answers

    async def _decode(self, payload: Payload, deadline_s: float, decoders: DecoderPool) -> Decoded:
        if self.decoder.is_light(payload):
            decoded = self.decoder.decode(payload)
        else:
            try:
                decoded = await decoders.decode(self.decoder, payload, deadline_s)
            except QueueFull:
                self.metrics.rejections["decoding_full"].inc()
                raise
        if len(decoded.rows):  # without any, the request fails and is counted as such
            for reason, number in Counter(map(reason_of, decoded.errors.values())).items():
                self.metrics.count_input_rejection(reason, number)
        return decoded


class _Copied:
    """A receiver whose rows are copied to somebody else once it has its outputs."""

    def __init__(self, receiver: Receiver, rows: NDArray[np.generic], copy: Copy) -> None:
        self.done = receiver.done
        self.cancelled = receiver.cancelled
        self.set_exception = receiver.set_exception
        self._set_result = receiver.set_result
        self._rows = rows
        self._copy = copy

    def set_result(self, delivery: Delivery[Any]) -> None:
        self._set_result(delivery)
        self._copy(self._rows, delivery.outputs)


class _NoRuntime:
    """Stands where the runtime of a retired predictor was."""

    def __init__(self, runtime: Runtime) -> None:
        self.device = runtime.device
        self.has_buckets = runtime.has_buckets

    def run(self, _: NDArray[np.generic]) -> Outputs:
        raise RunFailed("the version is not served any more")


def outcome_of(rows: Sequence[Answer | DunnoError]) -> str:
    """Return how a request that got its answers is counted."""
    answered = sum(isinstance(row, Answer) and isinstance(row.verdict, Answered) for row in rows)
    if answered == len(rows):
        return "answered"
    return "mixed" if answered else "unknown"


def _in_place(
    answers: Sequence[Answer | DunnoError], decoded: Decoded
) -> list[Answer | DunnoError]:
    """Return answers and errors in the order of the payload's rows; raise if all are errors."""
    rows = decoded.in_place(iter(answers))
    if isinstance(rows[0], DunnoError) and not any(isinstance(row, Answer) for row in rows):
        raise rows[0]
    return rows


def _drift(reference: Reference, labels: Sequence[str]) -> Drift:
    return Drift(
        reference.confidence.shares,
        None if reference.novelty_p is None else reference.novelty_p.shares,
        [reference.labels[label] for label in labels],
    )


def _read_golden(bundle: Bundle) -> _Golden:
    try:
        with np.load(io.BytesIO(bundle.read(GOLDEN)), allow_pickle=False) as arrays:
            return _Golden(*(arrays[name] for name in _Golden._fields))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise BundleCorrupt(f"{bundle.path / GOLDEN}: no golden rows ({error})") from None
