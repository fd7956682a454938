"""Start a server that may call nobody, ask it once, and print its answer."""

import http.client
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

BODY = b'{"instances": [[9, 0, 0]]}'


def ask(address: str) -> str:
    """Return the answer of the server to one row."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request("POST", "/predict/fruit", BODY, {"Content-Type": "application/json"})
    return connection.getresponse().read().decode()


def main() -> int:
    """Return the server's exit code."""
    command = [sys.executable, str(Path(__file__).with_name("cut_off.py")), "serve", "--port", "0"]
    with subprocess.Popen(  # noqa: S603  our own command
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"DUNNO_STOP_DELAY_MS": "0"}
    ) as server:
        assert server.stderr is not None
        for line in server.stderr:
            found = re.search(r"running on (http://[\d.:]+)", line)
            if found:
                print(ask(found.group(1)))  # noqa: T201  what it is for
                server.terminate()
            sys.stderr.write(line)
    return server.returncode


if __name__ == "__main__":
    sys.exit(main())
