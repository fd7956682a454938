"""One connection, byte by byte: limits that hold before there is a request, whoever answers it.

uvicorn's protocol reads headers of any length for any time, starts as many pipelined requests as
come, and waits forever for callers that do not read. This one ends such connections: with a
problem document where the caller may still read one, behind the answers that it still has to get.
"""

import asyncio
import math
from collections.abc import Iterable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.bodies import LINGER_S
from service.api.cors import allowing
from service.api.doorway import RESERVED, Connection, Doorway, peer_of
from service.api.http_rules import Refused, check_head, check_host, check_name, is_safe_host
from service.api.keep_alive import close_behind, has_begun_to_answer, has_unread
from service.api.middleware import SAFE_HEADERS, header, header_lines, request_id_from
from service.api.problems import MEDIA_TYPE, problem

MOST_PIPELINED = 32
"""So many requests of one connection wait for their turn; whoever sends more is cut off."""

PROBE_TIMEOUT_S = 1.0
"""So long a connection beyond the limit has for its one question."""

HALF_CLOSED_S = 5.0
"""Seconds for the answer to a client that has closed its sending side. It may have gone for good,
which shows only when something is written to it."""

FRESH_S = 1.0
"""Seconds for the first request of a connection that was accepted as the server began to drain."""

CHUNK_HEAD_BYTES = 16
"""Bytes of a chunk's own head that do not count; extensions do, as do trailers."""

_WISHES = frozenset({b"connection", b"upgrade", b"http2-settings"})

MALFORMED = "expected a request of HTTP/1.1, got bytes that are none"


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
        self.peer: str | None = None
        self._hosts = 0
        self._host = b""
        self._codings: list[bytes] = []
        # What came since the first byte of the head, at least; behind the last request line in it.
        self._latest = b""
        self._line_end = 0
        self._surplus_headers = 0
        self._half_closed_timer: asyncio.TimerHandle | None = None
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
        self._doorway.open_connections = cast("set[Connection]", self.connections)
        self.peer = peer_of(transport.get_extra_info("peername"))
        surplus = max(
            float(len(self.connections) - self._limits.max_connections),
            self._doorway.enter(self.peer),
        )
        if surplus <= 0:
            self._wait(self._head_timeout_s)
        elif surplus <= RESERVED:
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
        self._doorway.leave(self.peer)
        self._doorway.unsent.remove(self)
        self.pipeline.clear()
        if self.answered is not None and not self.answered.response_complete:
            self.answered.disconnected = True
            self.answered.message_event.set()
        for timer in (self._timer, self._write_timer, self._half_closed_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the limits."""
        if self._last_words is not None:
            return
        if self._is_in_head:
            self._latest += data
        else:
            self._latest, self._line_end = data, 0
        try:
            self._feed(data)
        except Refused as refused:
            self._refuse(refused)
        except httptools.HttpParserError as error:
            found = error.__context__
            if not isinstance(found, Refused):
                found = Refused(400, "malformed", MALFORMED)
            self._refuse(found)
        if self._is_in_head and self._due_s == math.inf:
            self._wait(self._head_timeout_s)

    def _feed(self, data: bytes) -> None:
        """Let the parser read what came."""
        fed = 0
        for piece in self._pieces(data):
            self._unseen_bytes += len(piece)
            rest: bytes | None = None
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as wish:
                rest = data[fed + wish.args[0] :]
            if rest is not None:  # not in the handler: exceptions would get its context
                self._stay_as_it_is(rest)
                return
            fed += len(piece)
            if self._unseen_bytes > self._limits.max_header_bytes:
                raise self._too_large()

    def _pieces(self, data: bytes) -> Iterable[bytes]:
        """Return what came in pieces, if it may have extensions of chunks or trailers.

        The parser does not tell how long these are. In pieces much smaller than their limit, little
        of what came before or behind them can be taken for them, or they for it.
        """
        most_bytes = self._limits.max_header_bytes
        if len(data) <= most_bytes // 2 or not (self._codings or b"hunked" in data):
            return (data,)
        size_bytes = most_bytes // 8
        return (data[at : at + size_bytes] for at in range(0, len(data), size_bytes))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what a client asked before it closed its sending side; uvicorn hangs up.

        Returns:
            Whether the connection stays open for writing.
        """
        if self._is_ending or not self._is_answering_whole():
            return False
        self.cycle.keep_alive = False
        self._half_closed_timer = self.loop.call_later(HALF_CLOSED_S, self.transport.abort)
        return True

    def _is_answering_whole(self) -> bool:
        """Tell whether an answer is on its way, and its request came whole."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or self._is_in_head:
            return False
        return not getattr(cycle, "more_body", False)

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
        self._hosts, self._codings, self._surplus_headers = 0, [], 0
        self._due_s = math.inf
        if len(self.pipeline) >= MOST_PIPELINED:
            detail = f"more than {MOST_PIPELINED} requests of one connection waited for answers"
            raise Refused(429, "pipelined", detail)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer comes too late to say anything."""
        if not self._is_in_head:
            return
        if len(self.headers) >= self._limits.max_headers:
            self._surplus_headers += 1  # counted only: the head is refused
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
            # Mostly it is that of the last request; a second one is refused anyway.
            if value != self._host and self._hosts == 1:
                check_host(value)
                self._check_safe(value)
                self._host = value
        elif name == b"expect" and value.strip().lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"transfer-encoding":
            self._codings.append(value)
        self.headers.append((name, value))

    def _check_safe(self, host: bytes) -> None:
        hosts = self._doorway.hosts
        if hosts is not None and not is_safe_host(host, hosts):
            got = host[:40].decode("latin-1")
            detail = f"expected a name of this machine in the Host header, got {got!r}"
            raise Refused(421, "host", f"{detail}; the operator may add it to DUNNO_ALLOWED_HOSTS")

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
        if self._surplus_headers:
            cap = self._limits.max_headers
            headers = cap + self._surplus_headers
            detail = f"the request has {headers:,} headers, more than the cap of {cap:,}"
            raise Refused(431, "header_count", detail)
        cap = self._limits.max_header_bytes
        if len(self._latest) > cap and self._head_bytes() > cap:
            raise self._too_large()
        # What came behind a head may be an extension, where there are chunks.
        behind_bytes = self._unseen_bytes - self._head_bytes() if self._codings else 0
        self._unseen_bytes = max(0, behind_bytes)
        version = self.parser.get_http_version()
        check_head(version, self.url, self._hosts, self._codings)
        method = self.parser.get_method()
        self._line_end = check_name(method, self.url, self._latest, self._line_end)
        if version == "1.0":
            self.expect_100_continue = False
        if self._is_surplus and self.url.partition(b"?")[0] not in self._doorway.probes:
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
        before = self.cycle
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
        elif self._doorway.is_stopping:
            close_behind(self.cycle, before)

    def say_close(self) -> None:
        """Let the answer to the last request that came say that the connection closes."""
        cycle = self.cycle
        if cycle is not None and not has_begun_to_answer(cycle):
            cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection once what was asked on it, or is about to be, has its answer.

        uvicorn closes a connection that has no request, although one may have arrived.
        """
        self._doorway.is_stopping = True
        self.say_close()
        if self._last_words is not None or self._is_in_head:
            return
        if self.cycle is None and not self.transport.is_closing():
            self._wait(FRESH_S)
        elif self.cycle is None or self.cycle.response_complete:
            if not has_unread(self.transport):
                self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _has_body(self) -> bool:
        told = (b"content-length", b"transfer-encoding")
        return any(name in told and value != b"0" for name, value in self.headers)

    def _head_bytes(self) -> int:
        """Return the size of the head, by the head itself: what came may be more than that."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_message_complete(self) -> None:
        """End the body, if there was a request."""
        self.check_unseen()
        if not self._is_passed_over:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self.count_body(len(body))
        super().on_body(body)

    def check_unseen(self) -> None:
        """See that extensions of chunks and trailers are within the limit of a head.

        Raises:
            Refused: if they are not.
        """
        if not self._codings:
            return
        if self._unseen_bytes > self._limits.max_header_bytes:
            raise self._too_large()
        self._unseen_bytes = 0  # the next request begins anew

    def count_body(self, size_bytes: int) -> None:
        """Leave a piece of a body out of what counts as head, extension or trailer."""
        unseen_bytes = self._unseen_bytes - size_bytes - CHUNK_HEAD_BYTES
        self._unseen_bytes = max(0, unseen_bytes)  # quicker than max

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
        if len(self.connections) > self._limits.max_connections:
            cap = self._limits.max_connections
            return Refused(503, "connections", f"connection limit reached ({cap:,})")
        most = self._limits.max_connections_per_peer
        detail = (
            f"connection limit of one address reached ({most:,}); behind a proxy that all clients "
            "come through, raise DUNNO_MAX_CONNECTIONS_PER_PEER"
        )
        return Refused(503, "connections_of_peer", detail)

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
        origin = header(self.headers or (), b"origin")
        if origin in self._doorway.origins:
            headers += allowing(origin)
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
        """Start the write timeout, and count what the client does not read."""
        super().pause_writing()
        self._doorway.unsent.add(self)
        self._watch_writing()

    def resume_writing(self) -> None:
        """Cancel the write timeout: the client reads."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()
        self._doorway.unsent.remove(self)

    def unsent_bytes(self) -> int:
        """Return how much of its answers the client has not read yet."""
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close the connection at once and drop what was not sent."""
        self.transport.abort()

    def _watch_writing(self) -> None:
        if self._write_timer is None:
            size_bytes = self.transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(
                self._limits.write_timeout_s, self._look_at_writing, size_bytes
            )

    def _look_at_writing(self, before_bytes: int) -> None:
        """Close the connection if the client has read nothing since the timeout was started."""
        self._write_timer = None
        left_bytes = self.transport.get_write_buffer_size()
        if left_bytes >= before_bytes > 0:
            self._doorway.count_rejection("write_timeout")
            self.transport.abort()
        elif left_bytes:
            self._watch_writing()
