import pytest

from service.api.http_rules import Refused, check_head


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
