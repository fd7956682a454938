"""A real Prometheus that scrapes one address each second, and a real Alertmanager."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import httpx

PATIENCE_S = 30.0
CONFIG = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files:
  - {rules}
alerting:
  alertmanagers:
    - static_configs:
        - targets: [{alertmanagers}]
scrape_configs:
  - job_name: dunno
    static_configs:
      - targets: ["{target}"]
        labels: {{namespace: shop, pod: dunno-a}}
"""
ROUTES = """
route: {{receiver: test, group_by: [alertname], group_wait: 0s, group_interval: 1s}}
receivers:
  - name: test
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


class Prometheus:
    """One that runs; asked by its API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def is_ready(self) -> bool:
        """Whether it takes queries."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.HTTPError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query, without those that are NaN."""
        response = self._client.get("/api/v1/query", params={"query": expression})
        assert response.is_success, f"{expression}: {response.text}"
        found: list[dict[str, Any]] = response.json()["data"]["result"]
        return [each for each in found if each["value"][1] != "NaN"]

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their health."""
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


def free_address() -> str:
    """Return host and port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """Run a program meanwhile."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:  # noqa: S603  by its path
        try:
            yield
        finally:
            process.terminate()


class Alertmanager(NamedTuple):
    """Where it takes alerts, host and port, and what it has told on, the oldest first."""

    address: str
    told: list[dict[str, Any]]

    def about(self, alert: str, status: str) -> list[dict[str, Any]]:
        """Return what it told on of an alert, `firing` or `resolved`."""
        return [
            each
            for each in list(self.told)
            if each["labels"]["alertname"] == alert and each["status"] == status
        ]


@contextmanager
def called(told: list[dict[str, Any]]) -> Iterator[str]:
    """Take what Alertmanager tells of alerts into `told`, at the URL that this yields."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            told.extend(json.loads(self.rfile.read(length))["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def alerted(command: str | None, folder: Path) -> Iterator[Alertmanager | None]:
    """Start Alertmanager by `command`; None: there is none."""
    if command is None:
        yield None
        return
    found = Alertmanager(free_address(), [])
    config = folder / "alertmanager.yml"
    options = [f"--config.file={config}", f"--storage.path={folder / 'alerts'}"]
    options += [f"--web.listen-address={found.address}", "--cluster.listen-address="]
    with called(found.told) as url:
        config.write_text(ROUTES.format(url=url))
        with running([command, *options]):
            yield found


@contextmanager
def scraped(
    command: str, address: str, rules: Path, alertmanager: Alertmanager | None = None
) -> Iterator[Prometheus]:
    """Start Prometheus by `command` with `rules`, and let it scrape `address`."""
    own = free_address()
    config = rules.with_name("prometheus.yml")
    target = address.removeprefix("http://")
    told = alertmanager.address if alertmanager else ""
    config.write_text(CONFIG.format(rules=rules, target=target, alertmanagers=told))
    options = [f"--config.file={config}", f"--storage.tsdb.path={rules.with_name('data')}"]
    with (
        httpx.Client(base_url=f"http://{own}", timeout=10) as client,
        running([command, *options, f"--web.listen-address={own}"]),
    ):
        prometheus = Prometheus(client)
        wait_for(prometheus.is_ready)
        yield prometheus


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; Prometheus has no event to wait for."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(0.05)
