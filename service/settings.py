"""What the machine allows: DUNNO_* variables, read once, frozen.

What an operator chooses about models stands in `catalogue.toml`; what training knows, in manifests.
"""

import ipaddress
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MEBIBYTE = 1024 * 1024
PREFIX = "DUNNO_"
OTHER_VARIABLES = frozenset({"DUNNO_DATA", "DUNNO_WORKERS_RUN"})
"""Read elsewhere: by training, and by our own worker processes."""


class SettingsInvalid(ValueError):
    """A DUNNO_* variable is out of bounds; the message names it and what it must be."""


def _number_of_workers(value: object) -> object:
    return 0 if value == "auto" else value


def _files_by_commas(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):  # empty is no way to say "none": it is what a forgotten variable becomes
        raise ValueError("expected files, by commas")
    return parts


def _texts_by_commas(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(text.strip() for text in value.split(",") if text.strip())


_is_origin = re.compile(
    r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?|https?://\[[0-9a-f:]+\](?::[0-9]{1,5})?"
).fullmatch


class Settings(BaseSettings):
    """The process's own limits and addresses."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    """Address to listen on; loopback unless you open it. `0.0.0.0` is every IPv4 address, `::`
    every IPv6 and IPv4 address."""

    port: int = Field(default=8000, ge=0, le=65_535)
    """Port to listen on; 0 picks a free one."""

    workers: Annotated[int, BeforeValidator(_number_of_workers)] = Field(default=1, ge=0, le=256)
    """Processes that share the port; `auto` or 0 takes one for each whole core."""

    models: Path = Path("models")
    """Folder of the bundles and of `catalogue.toml`."""

    default_model: str = ""
    """Model that is meant where a path names none; empty: the only one that is served."""

    trusted_keys: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_files_by_commas)] = ()
    """Files of public keys, by commas; if there are any, unsigned bundles are refused."""

    watch_models_s: float = Field(default=0, ge=0, le=86_400)
    """Time between looks for a changed catalogue or a finished manifest; 0 = only when asked."""

    max_load_ms: float = Field(default=300_000, ge=100, le=86_400_000)
    """Longest time that one model may take to load. Beyond it a reload counts it as failed, and
    what was served before is served on; a start ends."""

    keys: Path | None = None
    """File of the keys that callers have to show; without it everybody may ask."""

    allow_anonymous: bool = False
    """Whether a wide address without keys is meant; for `dunno check`."""

    metrics_host: str = "127.0.0.1"
    """Address to listen on for /metrics, if it has a port of its own. `::` is every IPv6 and IPv4
    address."""

    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port for /metrics, which is then not on the other one; without it, it is."""

    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_texts_by_commas)] = ()
    """Origins whose pages may ask from a browser, such as `https://shop.example`, by commas."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_texts_by_commas)] = ()
    """Host names that the Host header may contain, separated by commas, without ports. `*` allows
    all. If empty, all are allowed, except on a loopback address, where names with a dot are refused
    (protection against DNS rebinding). IP addresses and names without a dot are always allowed."""

    docs_page: bool = True
    """Whether there is the page /docs, which shows the OpenAPI document."""

    admin_host: str = "127.0.0.1"
    """Address to listen on for loading, unloading and reloading."""

    admin_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port for that, with one worker; without it there is no such address."""

    admin_key: SecretStr | None = Field(default=None, min_length=16)
    """Key that callers of that address have to show; needed if it is not loopback."""

    playground: bool = True
    """Whether browsers that ask for `/` get a page to try the models on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where graphs run; `auto` takes a GPU where there is one."""

    runtime_threads: int = Field(default=0, ge=0, le=256)
    """Threads of one run of a graph; 0 shares the cores of the container among the workers."""

    max_decode_requests: int = Field(default=64, ge=1, le=100_000)
    """Most requests that wait for a decoding thread; more are refused with 429."""

    decode_threads: int = Field(default=2, ge=1, le=64)
    """Threads that decode large bodies and pictures beside the event loop."""

    max_body_bytes: int = Field(default=8 * MEBIBYTE, ge=1024, le=1024 * MEBIBYTE)
    """Largest request body."""

    max_inflation_ratio: int = Field(default=200, ge=1, le=1100)
    """Most bytes that a byte of a compressed body may stand for, once they are more than 64 KiB."""

    max_arriving_bytes: int = Field(default=128 * MEBIBYTE, ge=1024, le=1024 * 1024 * MEBIBYTE)
    """Most bytes of all bodies together that came in several parts, until their requests end. Less
    where the container's memory limit leaves less. Beyond it: 503."""

    body_timeout_ms: float = Field(default=10_000, ge=100, le=600_000)
    """Longest time for a request body to arrive."""

    max_connections: int = Field(default=4096, ge=1, le=1_000_000)
    """Most connections of one process; more are refused with 503, except for probes."""

    max_connections_per_peer: int = Field(default=1024, ge=0, le=1_000_000)
    """Most connections of one client address (with IPv6: of one /64 network) to one process. More
    are refused with 503. Raise it behind a proxy that all clients come through. 0 disables it."""

    max_header_bytes: int = Field(default=32_768, ge=1024, le=MEBIBYTE)
    """Largest request line and headers together."""

    max_headers: int = Field(default=100, ge=8, le=10_000)
    """Most headers of one request."""

    header_timeout_ms: float = Field(default=10_000, ge=50, le=600_000)
    """Longest time for request line and headers to arrive."""

    keep_alive_ms: float = Field(default=5000, ge=50, le=3_600_000)
    """Keep-alive timeout: an idle connection is closed after this time. Set it above the idle
    timeout of a proxy in front, such as 75000 for 60 s. Otherwise the proxy may send a request on a
    connection that is being closed, and answers 502."""

    write_timeout_ms: float = Field(default=10_000, ge=50, le=600_000)
    """Longest time in which a caller reads nothing of its answer."""

    max_request_rows: int = Field(default=4096, ge=1, le=1_000_000)
    """Most rows of one request."""

    max_request_tokens: int = Field(default=1_000_000, ge=1000, le=1_000_000_000)
    """Maximum tokens of all texts of one request. The default is about one second of work, or 4,096
    film reviews."""

    max_row_errors: int = Field(default=100, ge=1, le=1_000_000)
    """Maximum row errors that one answer describes in full. Each further wrong row gets only its
    error code, and the answer has the number of wrong rows as `wrong_rows`."""

    max_picture_pixels: int = Field(default=16_000_000, ge=4096, le=200_000_000)
    """Most pixels of one picture before it is fitted."""

    max_request_pixels: int = Field(default=64_000_000, ge=4096, le=10_000_000_000)
    """Most pixels of all pictures of one request together."""

    max_picture_side: int = Field(default=16_384, ge=64, le=65_535)
    """Longest side of one picture, in pixels."""

    max_batch_rows: int = Field(default=32, ge=1, le=65_536)
    """Most rows of one run of a graph."""

    max_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    """Longest time the first row of a batch waits for company; 0 = never wait."""

    max_queue_rows: int = Field(default=8192, ge=1, le=10_000_000)
    """Most rows of one model that wait; more are refused with 429."""

    max_run_ms: float = Field(default=30_000, ge=10, le=3_600_000)
    """Longest run of a slow model; an instance that takes longer is given up and built anew."""

    max_stall_ms: float = Field(default=30_000, ge=0, le=3_600_000)
    """Milliseconds that the event loop may be blocked before the process ends. 0 disables it."""

    deadline_ms: float = Field(default=10_000, ge=1, le=600_000)
    """Time after which an answer is worthless, unless the request says less."""

    stop_delay_ms: float = Field(default=1000, ge=0, le=600_000)
    """Time after SIGTERM in which the server is not ready any more and goes on serving."""

    drain_timeout_ms: float = Field(default=20_000, ge=0, le=600_000)
    """Longest time that requests in flight get when the server stops."""

    access_log: bool = False
    """Whether every predict request is logged; failures of ours always are."""

    slow_request_ms: float = Field(default=0, ge=0, le=600_000)
    """Time from which an answered request is logged with its stages; 0 = never."""

    revision: str = Field(default="", pattern=r"^[\w.+-]{0,64}$")
    """Commit that is running, told in `dunno_build_info`; the image sets it."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged, as JSON lines on standard error."""

    @property
    def slow_request_s(self) -> float:
        """From how many seconds on an answered request is logged."""
        return self.slow_request_ms / 1000 or math.inf

    @model_validator(mode="after")
    def _admin_address_is_guarded(self) -> Self:
        if self.admin_port is None:
            return self
        if self.admin_key is None and not is_loopback(self.admin_host):
            raise ValueError(
                f"DUNNO_ADMIN_HOST {self.admin_host} is not loopback: set DUNNO_ADMIN_KEY, "
                "or everybody who reaches it could unload models"
            )
        if self.workers != 1:
            raise ValueError(
                "DUNNO_ADMIN_PORT needs DUNNO_WORKERS=1; with several workers, "
                "send SIGHUP to the parent process to reload"
            )
        return self

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_exact(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _is_origin(origin):
                raise ValueError("expected origins such as https://shop.example:8443, by commas")
        return origins

    @model_validator(mode="after")
    def _workers_share_the_port_of_metrics(self) -> Self:
        if self.metrics_port is None or self.workers == 1:
            return self
        if self.metrics_port == 0:
            raise ValueError("DUNNO_METRICS_PORT=0 needs DUNNO_WORKERS=1: each would pick another")
        if sys.platform != "linux":
            raise ValueError("DUNNO_METRICS_PORT needs DUNNO_WORKERS=1 where this is not Linux")
        return self

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.max_queue_rows < self.max_batch_rows:
            raise ValueError("DUNNO_MAX_QUEUE_ROWS must be at least DUNNO_MAX_BATCH_ROWS")
        return self


def read_settings(**overrides: Any) -> Settings:
    """Return the settings of this process's environment, with `overrides` by field name.

    Raises:
        SettingsInvalid: naming the first variable that is out of bounds.
    """
    try:
        return Settings(**overrides)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        name = "_".join(str(part) for part in first["loc"]).upper()
        # A key that is too short is a key all the same.
        got = "one that is not shown" if name.endswith("_KEY") else repr(first["input"])
        message = f"DUNNO_{name}: {reason}, got {got}" if name else reason
        raise SettingsInvalid(message) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the DUNNO_* variables that nothing reads: most likely misspelled."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | OTHER_VARIABLES
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def worker_count(settings: Settings) -> int:
    """Return how many processes share the port."""
    return settings.workers or max(1, int(usable_cores()))


def usable_cores(
    cgroup: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float:
    """Return how many cores this process may use: its affinity, cut by quotas.

    Args:
        cgroup: where control groups are mounted, version 1 or 2.
        own: tells which groups this process is in; in a container they are mounted as the first.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    quotas = (_quota_of(cgroup, group) for group in _groups(own, "cpu"))
    return min([cores, *(quota for quota in quotas if quota)])


def usable_memory_bytes(
    cgroup: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Return how much memory this process may use: the machine's, cut by limits of its container.

    Args:
        cgroup: where control groups are mounted, version 1 or 2.
        own: tells which groups this process is in; in a container they are mounted as the first.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (_memory_limit_of(cgroup, group) for group in _groups(own, "memory"))
    return min([machine, *(limit for limit in limits if limit)])


def _memory_limit_of(cgroup: Path, group: PurePosixPath) -> int | None:
    version_2 = cgroup / group / "memory.max"
    version_1 = cgroup / "memory" / group / "memory.limit_in_bytes"
    for file in (version_2, version_1):
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            pass  # no such file, or "max": no limit
    return None


def _groups(own: Path, controller: str) -> set[PurePosixPath]:
    """Return the groups of this process for a controller, those above and the first one."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        lines = []
    found = {PurePosixPath()}
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if not controllers or controller in controllers.split(","):
            group = PurePosixPath(path.lstrip("/"))
            found |= {group, *group.parents}
    return found


def _quota_of(cgroup: Path, group: PurePosixPath) -> float | None:
    return _quota_of_version_2(cgroup / group) or _quota_of_version_1(cgroup / "cpu" / group)


def _quota_of_version_2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None  # no such file, or "max": no quota


def _quota_of_version_1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
