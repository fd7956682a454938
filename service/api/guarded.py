"""One connection, byte by byte: limits that hold before there is a request, whoever answers it.

uvicorn's protocol reads headers of any length for any time, starts as many pipelined requests as
come, and waits forever for callers that do not read. This one ends such connections: with a
problem document where the caller may still read one, behind the answers that it still has to get.
"""

import asyncio
import math
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.bodies import LINGER_S
from service.api.doorway import RESERVED, Doorway
from service.api.middleware import SAFE_HEADERS, header_lines, request_id_from
from service.api.problems import MEDIA_TYPE, problem

MOST_PIPELINED = 32
"""So many requests of one connection wait for their turn; whoever sends more is cut off."""

PROBE_TIMEOUT_S = 1.0
"""So long a connection beyond the limit has for its one question."""

PROBES = frozenset(
    {b"/livez", b"/readyz", b"/metrics", b"/ping", b"/v2/health/live", b"/v2/health/ready"}
)
"""What is answered on connections beyond the limit: an overload is no reason for a restart."""

_WISHES = frozenset({b"connection", b"upgrade", b"http2-settings"})

MALFORMED = "expected a request of HTTP/1.1, got bytes that are none"


class Refused(Exception):
    """The connection ends here; carries what its caller is told."""

    def __init__(self, status: int, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.cause = cause
        self.detail = detail


def _doorway_of(app: Any) -> Doorway:
    """Return the doorway of the service, whatever stands in front of it."""
    while not hasattr(app, "doorway"):
        app = app.app
    found: Doorway = app.doorway
    return found


class GuardedProtocol(HttpToolsProtocol):
    """One connection to the service; everything else is uvicorn's."""

    parser: httptools.HttpRequestParser
    url: bytes
    cycle: Any
    """uvicorn's `RequestResponseCycle`, what stands in for one, or None at the beginning; of the
    last request that came."""

    answered: Any = None
    """The same of the request that is being answered: others may wait behind it."""

    def __init__(self, *args: Any, doorway: Doorway | None = None, **kwargs: Any) -> None:
        """Begin as uvicorn does; without a `doorway` the app has one."""
        super().__init__(*args, **kwargs)
        self._doorway = doorway or _doorway_of(self.app)
        self._limits = self._doorway.limits
        # Bytes that came since the last head was complete, or the last piece of a body.
        self._unseen_bytes = 0
        self._is_in_head = False
        # The parser passes the body over, as it takes it for another protocol.
        self._is_passed_over = False
        self._is_surplus = False
        self._head_timeout_s = self._limits.header_timeout_s
        # Nothing more is read, and this is said behind the last answer.
        self._last_words: bytes | None = None
        self._is_ending = False
        # Until when the caller has to do something; one timer looks whether it has.
        self._due_s = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = math.inf
        self._write_timer: asyncio.TimerHandle | None = None

    # --- The connection -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many already."""
        super().connection_made(transport)
        self._doorway.connections.inc()
        number = len(self.connections)
        if number <= self._limits.max_connections:
            self._wait(self._head_timeout_s)
        elif number <= self._limits.max_connections + RESERVED:
            self._is_surplus = True
            self._head_timeout_s = min(PROBE_TIMEOUT_S, self._limits.header_timeout_s)
            self._wait(self._head_timeout_s)
        else:
            refused = self._too_many()
            self._doorway.count_rejection(refused.cause)
            transport.write(self._words(refused))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timers, and tell whoever is answering that nobody is there any more."""
        self._doorway.connections.dec()
        self.pipeline.clear()
        if self.answered is not None and not self.answered.response_complete:
            self.answered.disconnected = True
            self.answered.message_event.set()
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the limits."""
        if self._last_words is not None:
            return
        self._unseen_bytes += len(data)
        try:
            self.parser.feed_data(data)
            if self._unseen_bytes > self._limits.max_header_bytes:
                raise self._too_large()
        except httptools.HttpParserUpgrade as wish:
            self._stay_as_it_is(data[wish.args[0] :])
        except Refused as refused:
            self._refuse(refused)
        except httptools.HttpParserError as error:
            found = error.__context__
            if not isinstance(found, Refused):
                found = Refused(400, "malformed", MALFORMED)
            self._refuse(found)
        if self._is_in_head and self._due_s == math.inf:
            self._wait(self._head_timeout_s)

    def _stay_as_it_is(self, rest: bytes) -> None:
        """Answer a request for another protocol by this one, as HTTP allows.

        The parser reads no more: a request without a body is the last one. One with a body, as
        Java's client sends it, is read again as if it had not wished for anything.
        """
        if not self._is_passed_over:
            self.cycle.keep_alive = False
            self._last_words = b""
            return
        self._is_passed_over = False
        self._unseen_bytes = 0
        kept = [(name, value) for name, value in self.headers if name not in _WISHES]
        if not self.parser.should_keep_alive():
            kept.append((b"connection", b"close"))
        version = self.parser.get_http_version().encode()
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(line + header_lines(kept) + b"\r\n" + rest)

    def _should_upgrade(self) -> bool:
        return False  # there is nothing to upgrade to

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.answered = cycle
        super()._start_asgi_task(cycle, app)

    # --- A head -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Put off what is only needed once there is a whole head."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_in_head = True
        self._due_s = math.inf
        if len(self.pipeline) >= MOST_PIPELINED:
            detail = f"more than {MOST_PIPELINED} requests of one connection waited for answers"
            raise Refused(429, "pipelined", detail)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer comes too late to say anything."""
        if not self._is_in_head:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self.close_head()
        self.begin()

    def close_head(self) -> None:
        """See that a head is within the limits.

        Raises:
            Refused: if it is not.
        """
        self._is_in_head = False
        if len(self.headers) > self._limits.max_headers:
            cap = self._limits.max_headers
            detail = f"the request has {len(self.headers):,} headers, more than the cap of {cap:,}"
            raise Refused(431, "header_count", detail)
        if self._unseen_bytes > self._limits.max_header_bytes and self._is_head_too_large():
            raise self._too_large()
        self._unseen_bytes = 0
        if self._is_surplus and self.url.partition(b"?")[0] not in PROBES:
            raise self._too_many()

    def begin(self) -> None:
        """Begin as uvicorn would have at the first byte.

        Raises:
            Refused: if the target of the request is none.
        """
        if self.parser.get_method() == b"CONNECT":
            raise Refused(400, "malformed", "expected a request, got CONNECT: this is no proxy")
        if self.parser.should_upgrade() and self._has_body():
            self._is_passed_over = True
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        try:
            super().on_headers_complete()
        except (httptools.HttpParserError, ValueError, AttributeError):
            detail = "expected a path, or a whole address, as the target of the request"
            raise Refused(400, "malformed", detail) from None
        if self._is_surplus:
            self.cycle.keep_alive = False

    def _has_body(self) -> bool:
        told = (b"content-length", b"transfer-encoding")
        return any(name in told and value != b"0" for name, value in self.headers)

    def _is_head_too_large(self) -> bool:
        """Tell by the head itself: what came may be more than that."""
        size_bytes = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return bool(len(self.url) + size_bytes > self._limits.max_header_bytes)

    def on_message_complete(self) -> None:
        """End the body, if there was a request."""
        if not self._is_passed_over:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._unseen_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Do what uvicorn does, without a new timer for each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self._watch_writing()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_words is not None:
            self._end()
        elif not self._is_in_head:
            self._wait(self._limits.keep_alive_s)

    # --- Refusals -----------------------------------------------------------------------------

    def _too_large(self) -> Refused:
        cap = self._limits.max_header_bytes
        detail = f"the head of the request is larger than the cap of {cap:,} bytes"
        return Refused(431, "header_size", detail)

    def _too_many(self) -> Refused:
        cap = self._limits.max_connections
        return Refused(503, "connections", f"there are {cap:,} connections, the most there may be")

    def _refuse(self, refused: Refused) -> None:
        """Read nothing more, and say why behind the answers that are still to come."""
        if self.transport.is_closing():
            return
        self._doorway.count_rejection(refused.cause)
        self._last_words = self._words(refused)
        self._due_s = math.inf
        self._is_in_head = False
        if not self._is_answering():
            self._end()

    def _is_answering(self) -> bool:
        """Tell whether an answer is still to come, once the request that broke off is forgotten."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        is_broken: bool = getattr(cycle, "more_body", False)
        if is_broken and self.pipeline:
            self.pipeline.popleft()  # it waits behind one that is being answered
        elif is_broken:
            cycle.disconnected = True
            cycle.message_event.set()
            return False
        return True

    def _words(self, refused: Refused) -> bytes:
        request_id = request_id_from(b"")
        body = problem(refused.status, refused.cause, refused.detail, request_id)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            *SAFE_HEADERS,
            (b"connection", b"close"),
        ]
        if refused.status in (429, 503):
            headers.append((b"retry-after", b"1"))
        return b"%b%b\r\n%b" % (STATUS_LINE[refused.status], header_lines(headers), body)

    def _end(self) -> None:
        """Say the last words and hang up; what still comes is dropped for a while.

        Closing at once would make the kernel reset the connection, and the caller lose the words.
        """
        if self.transport.is_closing() or self._is_ending:
            return
        self._is_ending = True
        self.transport.write(self._last_words or b"")
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._wait(PROBE_TIMEOUT_S if self._is_surplus else LINGER_S)

    # --- Time ---------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """Give the caller so long; mostly there is a timer already, which goes off before."""
        self._due_s = due_s = self.loop.time() + seconds
        if due_s < self._timer_due_s:
            self._look_at(due_s)

    def _look_at(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(due_s, self._look)
        self._timer_due_s = due_s

    def _look(self) -> None:
        """End the connection if its caller has not done what it had to."""
        self._timer, self._timer_due_s = None, math.inf
        if self._due_s == math.inf or self.transport.is_closing():
            return
        if self._due_s > self.loop.time():
            self._look_at(self._due_s)
        elif self._is_ending:
            self.transport.abort()
        elif self._is_in_head:
            self._give_up_head()
        elif self.transport.get_write_buffer_size():
            self._watch_writing()
            self._wait(self._limits.write_timeout_s)
        else:
            self.transport.close()

    def _give_up_head(self) -> None:
        seconds = self._head_timeout_s
        if self.flow.read_paused:  # we do not listen ourselves
            self._wait(seconds)
        else:
            detail = f"the head of the request was not complete after {seconds:g} s"
            self._refuse(Refused(408, "header_timeout", detail))

    def pause_writing(self) -> None:
        """See that the caller reads."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """Be content: the caller reads."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def _watch_writing(self) -> None:
        if self._write_timer is None:
            size_bytes = self.transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(
                self._limits.write_timeout_s, self._look_at_writing, size_bytes
            )

    def _look_at_writing(self, before_bytes: int) -> None:
        """Hang up on a caller who has taken nothing of what waits for it meanwhile."""
        self._write_timer = None
        left_bytes = self.transport.get_write_buffer_size()
        if left_bytes >= before_bytes > 0:
            self._doorway.count_rejection("write_timeout")
            self.transport.abort()
        elif left_bytes:
            self._watch_writing()
