"""For what another process or thread does by itself, without an event to wait for."""

import time
from collections.abc import Callable

PATIENCE_S = 20.0
LOOK_EVERY_S = 0.01


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(LOOK_EVERY_S)
