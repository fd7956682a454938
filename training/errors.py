"""What can go wrong while a model is made; each message says what to do.

DunnoError
└── TrainingError
    ├── RecipeMissing   no recipe of that name
    ├── DataMissing     a data file is not here and could not be downloaded
    ├── DataCorrupt     a data file is not the one that the recipe was written for
    └── ExportDiffers   two runtimes disagree about the exported graph; nothing is written

The command line prints the message alone and leaves with exit code 1.
"""

from service.errors import DunnoError


class TrainingError(DunnoError):
    """Base of the failures of `training`."""


class RecipeMissing(TrainingError):
    """There is no recipe of that name; the message lists those that exist."""


class DataMissing(TrainingError):
    """A data file is missing; the message names file, address and the folder to put it into."""


class DataCorrupt(TrainingError):
    """A data file's content differs from the pinned sha256."""


class ExportDiffers(TrainingError):
    """SavedModel and ONNX differ by more than is allowed, or an output depends on the batch."""
