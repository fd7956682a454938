"""Settings of the server process: DUNNO_* environment variables, read once at the start.

Choices about models are in `catalogue.toml`; facts from training are in the manifests.
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
"""Variables that the training scripts and the worker processes read."""


class SettingsInvalid(ValueError):
    """A DUNNO_* variable is invalid; the message names it and the expected values."""


def _number_of_workers(value: object) -> object:
    return 0 if value == "auto" else value


def _files_by_commas(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):  # empty is no way to say "none": it is what a forgotten variable becomes
        raise ValueError("expected files, separated by commas")
    return parts


def _texts_by_commas(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(text.strip() for text in value.split(",") if text.strip())


_is_origin = re.compile(
    r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?|https?://\[[0-9a-f:]+\](?::[0-9]{1,5})?"
).fullmatch


class Settings(BaseSettings):
    """Addresses and limits of one server process."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    """IP address or host name to listen on. The default accepts connections from this machine only.
    `0.0.0.0` accepts IPv4 connections on all interfaces, `::` IPv6 and IPv4 connections."""

    port: int = Field(default=8000, ge=0, le=65_535)
    """Port to listen on. 0 selects a free port."""

    workers: Annotated[int, BeforeValidator(_number_of_workers)] = Field(default=1, ge=0, le=256)
    """Number of worker processes that share the port. `auto` or 0 starts one for each CPU core."""

    models: Path = Path("models")
    """Folder with `catalogue.toml` and the model bundles."""

    default_model: str = ""
    """Model for paths without a model name, such as /invocations. Empty: the only served model."""

    trusted_keys: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_files_by_commas)] = ()
    """Files with public keys that verify bundle signatures, separated by commas. If set, bundles
    without a valid signature are refused."""

    watch_models_s: float = Field(default=0, ge=0, le=86_400)
    """Poll interval for changes of the catalogue, of bundles and of API keys, in seconds. 0
    disables polling; SIGHUP and POST /reload work in any case."""

    max_load_ms: float = Field(default=300_000, ge=100, le=86_400_000)
    """Time limit for loading one model. If a reload exceeds it, the load is reported as failed and
    the previous version stays in service. If the start exceeds it, the server exits."""

    keys: Path | None = None
    """File with API keys. If set, every request needs a key, except health checks. If unset, there
    is no authentication."""

    allow_anonymous: bool = False
    """Confirms that the server is open to the network without API keys on purpose. Only `dunno
    check` reads it."""

    metrics_host: str = "127.0.0.1"
    """IP address for DUNNO_METRICS_PORT. `::` accepts IPv6 and IPv4 connections."""

    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Separate port for /metrics. If unset, /metrics is served on DUNNO_PORT."""

    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_texts_by_commas)] = ()
    """CORS: origins of web pages that may send requests from a browser, separated by commas, such
    as `https://shop.example`."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_texts_by_commas)] = ()
    """Host names that the Host header may contain, separated by commas, without ports. `*` allows
    all. If empty, all are allowed, except on a loopback address, where names with a dot are refused
    (protection against DNS rebinding). IP addresses and names without a dot are always allowed."""

    docs_page: bool = True
    """Serves the API reference page at /docs."""

    admin_host: str = "127.0.0.1"
    """IP address for DUNNO_ADMIN_PORT."""

    admin_port: int | None = Field(default=None, ge=0, le=65_535)
    """Separate port for the admin API: load, unload and reload models. It needs DUNNO_WORKERS=1. If
    unset, there is no admin API."""

    admin_key: SecretStr | None = Field(default=None, min_length=16)
    """API key for the admin API. Required unless DUNNO_ADMIN_HOST is a loopback address."""

    playground: bool = True
    """Serves the playground, a page to try the models, to browsers that open `/`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that runs the models. `auto` uses a GPU if there is one."""

    runtime_threads: int = Field(default=0, ge=0, le=256)
    """Threads that one batch uses. 0 divides the CPU cores of the container among the workers."""

    max_decode_requests: int = Field(default=64, ge=1, le=100_000)
    """Maximum requests that wait for a decoding thread. Beyond it: 429."""

    decode_threads: int = Field(default=2, ge=1, le=64)
    """Threads that decode large request bodies and pictures."""

    max_body_bytes: int = Field(default=8 * MEBIBYTE, ge=1024, le=1024 * MEBIBYTE)
    """Maximum size of a request body. Beyond it: 413."""

    max_inflation_ratio: int = Field(default=200, ge=1, le=1100)
    """Maximum decompression ratio of a compressed request body above 64 KiB. Beyond it: 413."""

    max_arriving_bytes: int = Field(default=128 * MEBIBYTE, ge=1024, le=1024 * 1024 * MEBIBYTE)
    """Memory budget for request bodies that arrived in several parts, over all connections. It is
    smaller if the container's memory limit requires that. Beyond it: 503."""

    body_timeout_ms: float = Field(default=10_000, ge=100, le=600_000)
    """Time limit for a request body to arrive. Beyond it: 408."""

    max_connections: int = Field(default=4096, ge=1, le=1_000_000)
    """Maximum connections of one process. Beyond it: 503, except for health checks and /metrics."""

    max_connections_per_peer: int = Field(default=1024, ge=0, le=1_000_000)
    """Maximum connections from one client address (IPv6: one /64 network) to one process. Beyond
    it: 503. Raise it behind a proxy, which has one address for all clients. 0 disables the
    limit."""

    max_header_bytes: int = Field(default=32_768, ge=1024, le=MEBIBYTE)
    """Maximum size of request line and headers together. Beyond it: 431."""

    max_headers: int = Field(default=100, ge=8, le=10_000)
    """Maximum number of headers of one request. Beyond it: 431."""

    header_timeout_ms: float = Field(default=10_000, ge=50, le=600_000)
    """Time limit for request line and headers to arrive. Beyond it: 408."""

    keep_alive_ms: float = Field(default=5000, ge=50, le=3_600_000)
    """Keep-alive timeout: an idle connection is closed after this time. Set it above the idle
    timeout of a proxy in front, such as 75000 for 60 s. Otherwise the proxy may send a request on a
    connection that is being closed, and answers 502."""

    write_timeout_ms: float = Field(default=10_000, ge=50, le=600_000)
    """Write timeout: the connection is closed if the client reads nothing of its answer for this
    long."""

    max_request_rows: int = Field(default=4096, ge=1, le=1_000_000)
    """Maximum rows of one request. Models with large inputs take fewer, by memory. Beyond it:
    413."""

    max_request_tokens: int = Field(default=1_000_000, ge=1000, le=1_000_000_000)
    """Maximum tokens of all texts of one request. The default is about one second of work, or 4,096
    film reviews."""

    max_row_errors: int = Field(default=100, ge=1, le=1_000_000)
    """Maximum row errors that one answer describes in full. Each further wrong row gets only its
    error code, and the answer has the number of wrong rows as `wrong_rows`."""

    max_picture_pixels: int = Field(default=16_000_000, ge=4096, le=200_000_000)
    """Maximum pixels of one picture as it is sent. Beyond it: 413."""

    max_request_pixels: int = Field(default=64_000_000, ge=4096, le=10_000_000_000)
    """Maximum pixels of all pictures of one request together. Beyond it: 413."""

    max_picture_side: int = Field(default=16_384, ge=64, le=65_535)
    """Maximum width and height of a picture. Beyond it: 413."""

    max_batch_rows: int = Field(default=32, ge=1, le=65_536)
    """Maximum rows of one batch."""

    max_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    """Maximum time that a batch waits for more rows. 0: a batch never waits."""

    max_queue_rows: int = Field(default=8192, ge=1, le=10_000_000)
    """Maximum rows in the queue of one model. Models with large inputs queue fewer, by memory.
    Beyond it: 429."""

    max_run_ms: float = Field(default=30_000, ge=10, le=3_600_000)
    """Time limit for one batch of a slow model. An instance that exceeds it is replaced by a new
    one."""

    max_stall_ms: float = Field(default=30_000, ge=0, le=3_600_000)
    """Milliseconds that the event loop may be blocked before the process ends. 0 disables it."""

    deadline_ms: float = Field(default=10_000, ge=1, le=600_000)
    """Request timeout. Clients can request a shorter one. Beyond it: 504."""

    stop_delay_ms: float = Field(default=1000, ge=0, le=600_000)
    """Time between SIGTERM and the end of new connections. /readyz answers 503, so that load
    balancers stop sending requests; requests that arrive are answered."""

    drain_timeout_ms: float = Field(default=20_000, ge=0, le=600_000)
    """Graceful shutdown: time limit for requests in flight."""

    access_log: bool = False
    """Logs every predict request. This turns the fast path off. Internal errors are always
    logged."""

    slow_request_ms: float = Field(default=0, ge=0, le=600_000)
    """Slow-request log: an answered request that took longer is logged with the time of each stage.
    0 disables it."""

    revision: str = Field(default="", pattern=r"^[\w.+-]{0,64}$")
    """Git commit of the running version, for the metric `dunno_build_info`. The image sets it."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum level of log lines. The log is JSON lines on standard error."""

    @property
    def slow_request_s(self) -> float:
        """Seconds above which an answered request is logged."""
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
                raise ValueError(
                    "expected origins such as https://shop.example:8443, separated by commas"
                )
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
    """Return whether only this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the DUNNO_* variables that are unknown, probably misspelled."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | OTHER_VARIABLES
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def worker_count(settings: Settings) -> int:
    """Return the number of worker processes."""
    return settings.workers or max(1, int(usable_cores()))


def usable_cores(
    cgroup: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float:
    """Return how many CPU cores this process may use, by affinity and control-group quotas.

    Args:
        cgroup: where control groups are mounted, version 1 or 2.
        own: file with the control groups of this process.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    quotas = (_quota_of(cgroup, group) for group in _groups(own, "cpu"))
    return min([cores, *(quota for quota in quotas if quota)])


def usable_memory_bytes(
    cgroup: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Return how much memory this process may use, in bytes: by machine and container limit.

    Args:
        cgroup: where control groups are mounted, version 1 or 2.
        own: file with the control groups of this process.
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
