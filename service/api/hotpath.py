"""The fast path: common predict requests, answered in the connection's callback, without ASGI.

A protocol class of uvicorn. It handles a POST below `/predict/` itself if the whole request arrived
at once, is quick to decode, and can be queued. The answer is written straight to the socket. All
other requests (a body in pieces, a rare option or header, rows that cannot be read, a stopping
server) go through `Fastlane`, the slow path, with the same bytes. So errors are worded in one place
only, except for a full queue: under overload a refusal must be cheap.

Python spends more time on carrying a small request through ASGI than on answering it
(`load_tests/README.md`).
"""

import asyncio
import logging
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.bodies import payload_of
from service.api.cors import Cors
from service.api.exchange import Exchange, server_timing
from service.api.fastlane import PREFIX, Fastlane, Route
from service.api.gate import Gate
from service.api.guarded import CHUNK_HEAD_BYTES, GuardedProtocol
from service.api.http_rules import Refused
from service.api.middleware import SAFE_HEADERS, header, header_lines, request_id_from
from service.api.problems import refusal
from service.api.schemas import encode
from service.decision import Row
from service.errors import CapacityError, DunnoError
from service.inputs import Payload, decode_light
from service.prediction import Delivery, Prediction, Predictor, Stages, outcome_of

log = logging.getLogger(__name__)

_PATH = PREFIX.encode()
_SAFE = header_lines(SAFE_HEADERS)


class HotProtocol(GuardedProtocol):
    """A connection on which common predict requests take the fast path."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lane = _lane_of(self.app)
        # Pieces of the body of a request that may take the fast path; None: it takes the slow one.
        self._held: list[bytes] | None = None

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; a request that is not complete takes the slow path."""
        super().data_received(data)
        if self._held is not None and not self.transport.is_closing():
            try:
                self._let_go()
            except Refused as refused:
                self._refuse(refused)

    def on_headers_complete(self) -> None:
        """Hold the request back if it may take the fast path."""
        self.close_head()
        if (
            self._lane is not None
            and self.url.startswith(_PATH)
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
        ):
            self._held = []
        else:
            self.begin()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)
            # As in `count_body`, without a call: there may be a piece for each byte.
            unseen_bytes = self._unseen_bytes - len(body) - CHUNK_HEAD_BYTES
            self._unseen_bytes = max(0, unseen_bytes)

    def on_message_complete(self) -> None:
        """Answer the request, or hand it to the slow path."""
        if self._held is None or self._lane is None:
            super().on_message_complete()
            return
        self.check_unseen()
        body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        stays = self.parser.should_keep_alive() and not self._doorway.is_stopping
        exchange = _Exchange(self, self._lane, keep_alive=stays)
        try:
            is_taken = exchange.begin(body)
        except Exception:
            log.exception("fast path failed; the slow path answers")
            is_taken = False
        if is_taken:
            self._held = None
            # The next request of this connection waits for its answer.
            self.cycle = self.answered = exchange
        else:
            self._let_go()
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the rows out of the queue: the client closed the connection."""
        if isinstance(self.answered, _Exchange):
            self.answered.leave()
        super().connection_lost(exc)

    def _refuse(self, refused: Refused) -> None:
        self._held = None
        super()._refuse(refused)

    def _let_go(self) -> None:
        """Hand the request to the slow path, with the pieces that were held back."""
        held, self._held = self._held or [], None
        self.begin()
        for piece in held:
            super().on_body(piece)


def _lane_of(app: object) -> Fastlane | None:
    """Return the service behind authentication and CORS; None if the fast path is off."""
    while isinstance(app, Gate | Cors):
        app = app.app
    return app if isinstance(app, Fastlane) and app.may_be_hot else None


class _Nobody:
    """In place of the event that uvicorn sets; nothing waits for it here."""

    def set(self) -> None:
        """Do nothing."""


class _Exchange(Exchange):
    """A request on the fast path: a cycle for uvicorn, a receiver for the batcher."""

    __slots__ = (
        "_decode_s",
        "_job",
        "_lane",
        "_protocol",
        "_route",
        "_timer",
        "disconnected",
        "keep_alive",
        "response_complete",
    )

    message_event = _Nobody()

    def __init__(self, protocol: HotProtocol, lane: Fastlane, *, keep_alive: bool) -> None:
        super().__init__(lane.context, "", None)
        self._protocol = protocol
        self._lane = lane
        # What uvicorn reads and writes.
        self.keep_alive = keep_alive
        self._timer: asyncio.TimerHandle | None = None
        self.response_complete = False
        self.disconnected = False

    def begin(self, body: bytes) -> bool:
        """Queue the rows of a body; False: the slow path has to answer, and nothing was changed."""
        try:
            content_type = self._admit(body)
        except DunnoError:
            return False  # the slow path reports the error
        if content_type is None:
            return False
        is_taken = False
        try:
            is_taken = self._submit(payload_of(body, content_type))
        except CapacityError as error:  # refused here: it has to be cheap under overload
            is_taken = True
            if self._predictor is None:
                self._open(0.0)
            self.set_exception(error)
        except DunnoError:
            pass
        finally:
            if not is_taken:
                self._undo()
        return is_taken

    def _undo(self) -> None:
        """Leave the request to the slow path, which opens it and charges the API key again."""
        if self._predictor is not None:
            self.close()
        if self.key is not None:
            self.key.give_back()

    def _admit(self, body: bytes) -> bytes | None:
        """Find the route, charge the API key, and return the Content-Type; None: slow path.

        Raises:
            DunnoError: if the request is refused.
        """
        route = self._find_route(self._lane)
        if route is None or len(body) > self._lane.max_body_bytes:
            return None
        content_type = self._read_headers()
        if content_type is not None and self.key is not None:
            self.key.enter(time.monotonic())
        self._route = route
        return content_type

    def _submit(self, payload: Payload) -> bool:
        predictor, timeout_s = self._route.choice.predictor, self._route.timeout_s
        predictor.look_for_room(timeout_s)
        rows = self._decode(predictor, payload)
        if rows is None:
            return False
        self._open(self._decode_s)
        self._job = predictor.submit(rows, time.monotonic() + timeout_s, self)
        # Also for a quick model: a large request may run first, in a thread, and hang there.
        self._timer = self._protocol.loop.call_later(timeout_s, predictor.expire, self._job)
        return True

    def _open(self, age_s: float) -> None:
        self.open(self._protocol.headers, age_s)
        self.use(self._route.choice)

    def _find_route(self, lane: Fastlane) -> Route | None:
        """Return the route, if the API key may use it; None: the slow path has to decide."""
        headers = self._protocol.headers
        if lane.has_origins and header(headers, b"origin"):
            return None
        if lane.keys is None:
            return lane.route(self._protocol.url)
        self.key = lane.keys.find(headers)
        if self.key is None:
            return None
        route = lane.route(self._protocol.url)
        is_seen = route is not None and self.key.sees(route.choice.predictor.name)
        return route if is_seen else None

    def _decode(self, predictor: Predictor, payload: Payload) -> NDArray[np.generic] | None:
        """Return the rows, or None if the slow path has to decode or refuse this body."""
        decoded = decode_light(predictor.decoder, payload)
        if decoded is None:
            return None
        self._decode_s = self.age_s
        is_whole = not decoded.errors and not decoded.ignored_columns
        return decoded.rows if is_whole and predictor.fits_a_batch(len(decoded.rows)) else None

    def _read_headers(self) -> bytes | None:
        """Keep the request id and return the Content-Type; None if the body is encoded."""
        content_type = request_id = b""
        for name, value in self._protocol.headers:
            if name == b"content-type":
                content_type = content_type or value
            elif name == b"x-request-id":
                request_id = request_id or value
            elif name == b"content-encoding":
                return None
        self.request_id = request_id_from(request_id)
        return content_type

    def leave(self) -> None:
        """Cancel it: the client closed the connection."""
        if self.response_complete:
            return
        self._finish(0)
        self.disconnected = True
        self._route.choice.predictor.withdraw(self._job)
        self.record_cancelled()

    # --- What the batcher expects of a future -------------------------------------------------

    def done(self) -> bool:
        """Whether it has its answer, or needs none any more."""
        return self.response_complete

    def cancelled(self) -> bool:
        """Whether the client closed the connection."""
        return self.disconnected

    def set_result(self, delivery: Delivery[list[Row]]) -> None:
        """Write the answer."""
        started_s = time.perf_counter()
        (predictor, _), options, terms, _ = self._route
        rows = predictor.answers(delivery.outputs, terms)
        failure = rows[0]
        if isinstance(failure, DunnoError) and all(isinstance(row, DunnoError) for row in rows):
            self.set_exception(failure)
            return
        decided_s = time.perf_counter()
        decide_s = decided_s - started_s
        stages = Stages(self._decode_s, delivery.queue_s, delivery.run_s, decide_s)
        prediction = Prediction(rows, terms, stages, (), outcome_of(rows))
        body = encode(predictor, prediction, options, self.request_id)
        encode_s = time.perf_counter() - decided_s
        self._write(
            200,
            b"content-type: application/json\r\nserver-timing: %b\r\n" % server_timing(stages),
            body,
        )
        self.record_answered(prediction, encode_s)

    def set_exception(self, error: DunnoError) -> None:
        """Write the failure."""
        status, headers, body = refusal(error, self.request_id)
        self._write(status, header_lines(headers), body)
        self.record_refused(error)

    # ------------------------------------------------------------------------------------------

    def _write(self, status: int, lines: bytes, body: bytes) -> None:
        protocol = self._protocol
        if protocol.transport.is_closing():
            self._finish(0)
            return
        protocol.transport.write(
            b"%b%b%bcontent-length: %d\r\nx-request-id: %b\r\n%b%b\r\n%b"
            % (
                STATUS_LINE[status],
                _default_lines(protocol.server_state.default_headers),
                lines,
                len(body),
                self.request_id.encode(),
                _SAFE if self.trace is None else _SAFE + header_lines([self.trace.header]),
                b"" if self.keep_alive else b"connection: close\r\n",
                body,
            )
        )
        self._finish(status)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def _finish(self, status: int) -> None:
        self.response_complete = True
        self.close()
        if self._timer is not None:
            self._timer.cancel()
        if self.key is not None:
            self.key.leave(status, self.age_s)


class _Lines:
    """The lines of uvicorn's own headers, which change once a second."""

    headers: list[tuple[bytes, bytes]] | None = None
    lines = b""


def _default_lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    if _Lines.headers is not headers:
        _Lines.headers, _Lines.lines = headers, header_lines(headers)
    return _Lines.lines
