"""Every model by every body kind and protocol, against a fresh server: is each answer well-formed?

Starts a server of its own and lets Locust ask it with `locustfile.py`; what is not known here goes
to Locust. Ends with Locust's exit code: 1 if a threshold was not kept.

    make load            or            python load_tests/run_locust.py --run-time 60s --shape steps
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from many_callers import serving

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main() -> int:
    """Run it, write the report, and return Locust's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--run-time", default="30s")
    parser.add_argument("--html", type=Path, default=Path("build/load.html"))
    options, others = parser.parse_known_args()
    options.html.parent.mkdir(parents=True, exist_ok=True)
    users = str(options.users)
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless"]
    command += ["--only-summary", "--users", users, "--spawn-rate", users]
    command += ["--run-time", options.run_time, "--html", str(options.html), *others]
    environment = os.environ | {"LOAD_MODELS": str(options.models.resolve())}
    with serving(options.models) as (_, address):
        command += ["--host", address]
        done = subprocess.run(command, env=environment, check=False)  # noqa: S603  our own command
    print(f"report: {options.html}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
