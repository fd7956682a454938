"""Keys: what their file may say, how they are found, and how much they may take."""

import math
from pathlib import Path

import pytest

from service.api.keys import (
    Key,
    KeyEntry,
    Keys,
    digest_of,
    is_key_name,
    new_key,
    read_key_file,
    shown_key,
)
from service.errors import ConcurrencyExceeded, KeysInvalid, RateExceeded
from service.telemetry.metrics import Metrics

DIGEST, OTHER = digest_of("one"), digest_of("other")
MINUTE_S = 60.0


def written(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text)
    return path


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"dunno"), (b"authorization", f"Bearer {key}".encode())]


def key_with(**limits: object) -> Key:
    entry = KeyEntry.model_validate({"sha256": [DIGEST], **limits})
    return Key("shop", entry, Metrics())


def test_file_of_keys_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(f'[keys.shop]\nsha256 = ["{DIGEST}"]\n', encoding="utf-8-sig")

    assert list(read_key_file(path).keys) == ["shop"]


def test_entry_says_who_may_ask_for_what_and_how_often(tmp_path: Path) -> None:
    text = f"""
        [keys.shop]
        sha256 = ["{DIGEST}", "{OTHER}"]
        models = ["mnist", "wine"]
        requests_per_s = 100
        burst = 10
        concurrent_requests = 20
        metrics = true
    """

    entry = read_key_file(written(tmp_path, text)).keys["shop"]

    assert entry.sha256 == (DIGEST, OTHER)
    assert entry.models == ("mnist", "wine")
    assert (entry.requests_per_s, entry.burst, entry.concurrent_requests) == (100, 10, 20)
    assert entry.metrics


def test_entry_allows_all_but_metrics_unless_it_says_otherwise() -> None:
    entry = KeyEntry(sha256=(DIGEST,))

    assert (entry.models, entry.requests_per_s, entry.concurrent_requests) == (None, None, None)
    assert not entry.metrics


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("", "keys: Field required", id="nothing"),
        pytest.param("[keys]", "keys: .*at least 1", id="no key"),
        pytest.param("[keys.shop]", "keys.shop.sha256: Field required", id="no digest"),
        pytest.param("[keys.shop]\nsha256 = []", "keys.shop.sha256: .*1 item", id="empty list"),
        pytest.param(
            f'[keys.shop]\nsha256 = ["{DIGEST}", "{DIGEST}", "{DIGEST}"]',
            "keys.shop.sha256: .*at most 2",
            id="a third digest",
        ),
        pytest.param('[keys.shop]\nsha256 = ["abc"]', r"keys.shop.sha256.0: ", id="no digest"),
        pytest.param(
            f'[keys.shop]\nsha256 = ["{DIGEST}"]\nlimit = 3',
            "keys.shop.limit: Extra inputs",
            id="unknown word",
        ),
        pytest.param(
            f'[keys.shop]\nsha256 = ["{DIGEST}"]\nrequests_per_s = 0',
            "keys.shop.requests_per_s: ",
            id="rate of nothing",
        ),
        pytest.param(
            f'[keys.shop]\nsha256 = ["{DIGEST}"]\nburst = 3',
            "keys.shop: burst: needs requests_per_s",
            id="burst without rate",
        ),
        pytest.param(
            f'[keys.a]\nsha256 = ["{DIGEST}"]\n[keys.b]\nsha256 = ["{DIGEST}"]',
            "keys: b.sha256: one of a as well",
            id="shared",
        ),
        pytest.param('[keys."Shop!"]\nsha256 = []', "keys.Shop!", id="bad name"),
        pytest.param("[keys", "Expected", id="no TOML"),
        pytest.param("x = " + "[" * 9999, "is nested too deeply", id="nested"),
        pytest.param("x = " + "1" * 9999, ".*4300 digits", id="number of 9,999 digits"),
        pytest.param(
            f'[keys.shop]\nsha256 = ["{DIGEST}"]\nrequests_per_s = nan',
            "keys.shop.requests_per_s: ",
            id="rate that is no number",
        ),
        pytest.param(
            f'[keys.shop]\nsha256 = ["{DIGEST}"]\nrequests_per_s = 1e-310',
            "keys.shop.requests_per_s: ",
            id="rate whose pause is endless",
        ),
    ],
)
def test_file_of_keys_that_makes_no_sense_is_refused_by_place(
    tmp_path: Path, text: str, place: str
) -> None:
    with pytest.raises(KeysInvalid, match=f"keys.toml: {place}"):
        read_key_file(written(tmp_path, text))


def test_file_of_keys_that_is_not_there_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(KeysInvalid, match=r"nowhere.toml: .*set DUNNO_KEYS"):
        read_key_file(tmp_path / "nowhere.toml")


def test_key_in_place_of_its_digest_is_not_told(tmp_path: Path) -> None:
    key = new_key()

    with pytest.raises(KeysInvalid) as refusal:
        read_key_file(written(tmp_path, f'[keys.shop]\nsha256 = ["{key}"]'))

    assert key not in str(refusal.value)


def test_new_key_has_its_mark_and_256_random_bits() -> None:
    keys = {new_key() for _ in range(100)}

    assert len(keys) == 100
    assert all(key.startswith("dunno_") and len(key) == len("dunno_") + 43 for key in keys)
    assert all(key.isascii() and key.isprintable() for key in keys)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("shop-2_b", True), ("", False), ("a.b", False), ("A", False), ("a\n", False)],
)
def test_name_of_a_key_needs_no_quotes(name: str, is_one: bool) -> None:  # noqa: FBT001  a case
    assert is_key_name(name) == is_one


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        pytest.param([(b"authorization", b"Bearer abc")], b"abc", id="bearer"),
        pytest.param([(b"authorization", b"bEARER  abc ")], b"abc", id="bearer in any letters"),
        pytest.param([(b"x-api-key", b"abc")], b"abc", id="header of its own"),
        pytest.param(
            [(b"authorization", b"Basic abc"), (b"x-api-key", b"def")], b"def", id="basic"
        ),
        pytest.param(
            [(b"x-api-key", b"def"), (b"authorization", b"Bearer abc")], b"abc", id="both"
        ),
        pytest.param([(b"authorization", b"Bearer")], b"", id="nothing behind it"),
        pytest.param([(b"host", b"dunno")], b"", id="none"),
    ],
)
def test_key_is_shown_as_bearer_or_in_a_header_of_its_own(
    headers: list[tuple[bytes, bytes]], shown: bytes
) -> None:
    assert shown_key(headers) == shown


def test_both_digests_of_a_name_lead_to_the_same_caller(tmp_path: Path) -> None:
    text = f'[keys.shop]\nsha256 = ["{DIGEST}", "{OTHER}"]'
    keys = Keys(written(tmp_path, text), Metrics())

    found = [keys.find(bearer(key)) for key in ("one", "other", "another", DIGEST)]

    assert found[0] is not None
    assert found[0].name == "shop"
    assert found[1] is found[0]
    assert found[2:] == [None, None]


def test_key_that_is_read_anew_keeps_what_it_has_taken(tmp_path: Path) -> None:
    entry = 'sha256 = ["{}"]\nconcurrent_requests = 1'
    path = written(tmp_path, "[keys.shop]\n" + entry.format(DIGEST))
    keys = Keys(path, Metrics())
    before = keys.find(bearer("one"))
    assert before is not None
    before.enter(0)

    written(tmp_path, "[keys.shop]\n" + entry.format(OTHER))
    keys.read_anew()()

    assert keys.find(bearer("one")) is None
    assert keys.find(bearer("other")) is before
    with pytest.raises(ConcurrencyExceeded):
        before.enter(0)


def test_series_of_a_key_go_with_it(tmp_path: Path) -> None:
    metrics = Metrics()
    path = written(tmp_path, f'[keys.old]\nsha256 = ["{DIGEST}"]')
    keys = Keys(path, metrics)
    written(tmp_path, f'[keys.new]\nsha256 = ["{OTHER}"]')

    use = keys.read_anew()
    names_before = {name for name, _ in metrics.key_requests.values()}
    use()

    assert names_before == {"old"}
    assert {name for name, _ in metrics.key_requests.values()} == {"new"}


def test_model_outside_of_the_list_is_not_seen() -> None:
    assert key_with().sees("wine")
    assert key_with(models=["wine"]).sees("wine")
    assert not key_with(models=["wine"]).sees("mnist")
    assert not key_with(models=[]).sees("wine")


def test_burst_is_let_in_at_once_and_the_rest_at_the_rate() -> None:
    key = key_with(requests_per_s=10, burst=3)

    for _ in range(3):
        key.enter(MINUTE_S)
    with pytest.raises(RateExceeded) as refusal:
        key.enter(MINUTE_S)

    assert refusal.value.retry_after_s == pytest.approx(0.1)
    key.enter(MINUTE_S + refusal.value.retry_after_s)
    with pytest.raises(RateExceeded):
        key.enter(MINUTE_S + 0.1)


def test_refused_request_takes_nothing() -> None:
    key = key_with(requests_per_s=10, burst=1)
    key.enter(MINUTE_S)

    for _ in range(100):
        with pytest.raises(RateExceeded) as refusal:
            key.enter(MINUTE_S)

    assert refusal.value.retry_after_s == pytest.approx(0.1)


@pytest.mark.parametrize(("rate", "most"), [(100, 100), (0.5, 1), (3.7, 3)])
def test_burst_is_a_seconds_worth_unless_given(rate: float, most: int) -> None:
    key = key_with(requests_per_s=rate)

    for _ in range(most):
        key.enter(MINUTE_S)

    with pytest.raises(RateExceeded):
        key.enter(MINUTE_S)


def test_steady_caller_within_his_rate_is_never_refused() -> None:
    key = key_with(requests_per_s=7, burst=1)

    for number in range(10_000):
        key.enter(1e6 + number / 7)  # a machine that runs for days has clocks of few decimals

    assert key.in_flight == 10_000


def test_pause_earns_one_burst_and_no_more() -> None:
    key = key_with(requests_per_s=10, burst=2)
    key.enter(0)

    key.enter(1000 * MINUTE_S)
    key.enter(1000 * MINUTE_S)

    with pytest.raises(RateExceeded):
        key.enter(1000 * MINUTE_S)


def test_request_that_is_given_back_was_never_charged() -> None:
    key = key_with(requests_per_s=1, burst=1, concurrent_requests=1)

    key.enter(MINUTE_S)
    key.give_back()
    key.enter(MINUTE_S)

    assert key.in_flight == 1


def test_as_many_at_once_as_may_be_and_room_comes_back() -> None:
    key = key_with(concurrent_requests=2)
    key.enter(0)
    key.enter(0)

    with pytest.raises(ConcurrencyExceeded, match="2 requests at once"):
        key.enter(0)
    key.leave(200, 0.1)

    key.enter(0)
    assert key.in_flight == 2


def test_full_key_is_told_when_the_next_of_its_requests_ends() -> None:
    key = key_with(concurrent_requests=2)
    for _ in range(200):
        key.enter(0)
        key.leave(200, 6.0)
    key.enter(0)
    key.enter(0)

    with pytest.raises(ConcurrencyExceeded) as refusal:
        key.enter(0)

    # Two that take six seconds each: one of them ends in three.
    assert refusal.value.retry_after_s == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "ok"), (400, "invalid"), (404, "not_found"), (429, "rejected"), (0, "cancelled")],
)
def test_requests_are_counted_with_their_key(status: int, outcome: str) -> None:
    metrics = Metrics()
    key = Key("shop", KeyEntry(sha256=(DIGEST,)), metrics)

    key.enter(-math.inf)
    key.leave(status, 0.1)

    labels = {"key": "shop", "outcome": outcome}
    assert metrics.registry.get_sample_value("dunno_key_requests_total", labels) == 1
