"""What the machine allows: DUNNO_* variables, read once, frozen.

What an operator chooses about models stands in `catalogue.toml`; what training knows, in manifests.
"""

import ipaddress
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MEBIBYTE = 1024 * 1024
PREFIX = "DUNNO_"
OTHER_VARIABLES = frozenset({"DUNNO_DATA", "DUNNO_WORKERS_FOLDER"})
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


class Settings(BaseSettings):
    """The process's own limits and addresses."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    """Address to listen on; loopback unless you open it."""

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

    body_timeout_ms: float = Field(default=10_000, ge=100, le=600_000)
    """Longest time for a request body to arrive."""

    max_request_rows: int = Field(default=4096, ge=1, le=1_000_000)
    """Most rows of one request."""

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
    """Longest time that the event loop may stand still before the process ends; 0 = for ever."""

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


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Return how many cores this process may use: its affinity, cut by the container's quota.

    Args:
        cgroup: where control groups are mounted, version 1 or 2.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    quota = _quota_of_version_2(cgroup) or _quota_of_version_1(cgroup)
    return min(cores, quota) if quota else cores


def _quota_of_version_2(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None  # no such file, or "max": no quota


def _quota_of_version_1(cgroup: Path) -> float | None:
    try:
        quota = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
