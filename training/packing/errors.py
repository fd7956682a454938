"""What stops `dunno pack`: one sentence that names what is wrong and what to do."""

from training.errors import TrainingError


class PackRefused(TrainingError):
    """Model, labels, calibration file or an option do not go together; the caller can mend it."""
