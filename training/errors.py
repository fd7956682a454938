"""What can go wrong while a model is made; each message says what to do.

DunnoError
└── TrainingError
    ├── RecipeMissing   no recipe of that name
    ├── DataMissing     a data file is not here and could not be downloaded
    ├── DataCorrupt     a data file is not the one that the recipe was written for
    ├── RecipeDiffers   a bundle was made by a recipe with other labels or another input
    ├── ExportDiffers   two runtimes disagree about the exported graph; nothing is written
    ├── QuantizationRefused  an int8 graph gives other verdicts; nothing is written
    └── PackRefused     a model to pack, its labels and its rows do not go together

The command line prints the message alone and leaves with exit code 1; `dunno pack` with 2 if an
option or a file has to be mended first.
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


class RecipeDiffers(TrainingError):
    """The recipe has changed since the bundle was made; it has to be trained again."""


class ExportDiffers(TrainingError):
    """SavedModel and ONNX differ by more than is allowed, or an output depends on the batch."""


class QuantizationRefused(TrainingError):
    """A graph has nothing to quantise, or gives other verdicts in int8; nothing is written."""


class PackRefused(TrainingError):
    """Model, labels, calibration file or an option do not go together; the caller can mend it."""
