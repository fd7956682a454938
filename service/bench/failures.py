"""Why there is nothing to measure."""


class BenchFailed(Exception):
    """What was asked for cannot be measured; the message is one sentence for the user."""
