import pytest

from service.api.http_rules import Refused, check_head, check_host, check_name, is_safe_host


@pytest.mark.parametrize(
    ("version", "target", "hosts", "codings"),
    [
        pytest.param("1.1", b"/models", 1, [], id="HTTP/1.1"),
        pytest.param("1.1", b"/models", 1, [b"chunked"], id="chunked"),
        pytest.param("1.1", b"/models", 1, [b" Chunked "], id="another case"),
        pytest.param("1.0", b"/models", 0, [], id="HTTP/1.0 without a host"),
        pytest.param("1.1", b"http://dunno/models?a=%23", 1, [], id="whole address"),
    ],
)
def test_head_of_a_request_is_passed(
    version: str, target: bytes, hosts: int, codings: list[bytes]
) -> None:
    check_head(version, target, hosts, codings)


@pytest.mark.parametrize(
    ("version", "target", "hosts", "codings", "status", "why"),
    [
        pytest.param("1.1", b"/", 0, [], 400, "one Host header, got 0", id="no host"),
        pytest.param("1.1", b"/", 2, [], 400, "one Host header, got 2", id="two hosts"),
        pytest.param("1.0", b"/", 2, [], 400, "one Host header, got 2", id="two hosts in 1.0"),
        pytest.param("2.0", b"/", 1, [], 400, "got version 2.0", id="HTTP/2"),
        pytest.param("0.9", b"/", 1, [], 400, "got version 0.9", id="HTTP/0.9"),
        pytest.param("1.2", b"/", 1, [], 400, "got version 1.2", id="unknown version"),
        pytest.param("1.1", b"/a#b", 1, [], 400, "fragment", id="fragment"),
        pytest.param("1.0", b"/", 1, [b"chunked"], 400, "HTTP/1.0", id="coding in HTTP/1.0"),
        pytest.param("1.1", b"/", 1, [b"gzip, chunked"], 501, "gzip, chunked", id="gzip"),
        pytest.param("1.1", b"/", 1, [b"gzip", b"chunked"], 501, "gzip, chunked", id="two lines"),
        pytest.param("1.1", b"/", 1, [b"identity"], 501, "identity", id="identity"),
        pytest.param("1.1", b"/", 1, [b"chunked", b"chunked"], 501, "chunked", id="twice"),
    ],
)
def test_head_that_a_server_must_refuse_is_refused(
    version: str, target: bytes, hosts: int, codings: list[bytes], status: int, why: str
) -> None:
    with pytest.raises(Refused, match=why) as refused:
        check_head(version, target, hosts, codings)

    assert (refused.value.status, refused.value.cause) == (status, "malformed")


@pytest.mark.parametrize(
    "value",
    [
        b"dunno",
        b"dunno:8000",
        b"127.0.0.1:8",
        b"[::1]:8",
        b"[fe80::1%25eth0]",
        b"a_b.c-d",
        b"",
        b"x ",
    ],
)
def test_host_is_passed(value: bytes) -> None:
    check_host(value)


@pytest.mark.parametrize(
    "value",
    [
        b"a b",
        b"http://dunno/",
        b"me@dunno",
        b"a/b",
        b"a?b",
        b"a:b",
        b"::1",
        b"[::1",
        b"a\xffb",
        b'"a"',
    ],
)
def test_host_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(Refused, match="expected a host and its port in the Host header") as refused:
        check_host(value)

    assert refused.value.status == 400


def test_request_of_another_protocol_is_refused_by_its_name() -> None:
    came = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /a RTSP/1.1\r\nX: /a HTTP/1.1\r\n"
    end = check_name(b"GET", b"/a", came, 0)

    assert end == len(b"GET /a")
    with pytest.raises(Refused, match=r"got 'RTSP/1\.1'"):
        check_name(b"GET", b"/a", came, end)


@pytest.mark.parametrize(
    ("host", "is_safe"),
    [
        (b"localhost", True),
        (b"localhost.", True),
        (b"127.0.0.1:80", True),
        (b"10.0.0.7", True),
        (b"[::1]", True),
        (b"[fe80::1]:8000", True),
        (b"", True),
        (b"a.localhost:1", True),
        (b"shop.example:443", True),
        (b"evil.shop.example", False),
        (b"shop.example.evil", False),
        (b"localhost.evil.example", False),
        (b"1.evil.example:1", False),
    ],
)
def test_host_is_told_apart(*, host: bytes, is_safe: bool) -> None:
    assert is_safe_host(host, {b"shop.example"}) == is_safe
