"""What training refuses or fails with. The code is stable; the sentence is for a person and may change."""

from __future__ import annotations

from typing import Any


class StopRequested(Exception):
    """No error: unwinds from wherever it was asked to stop."""


class TrainingError(Exception):
    code = "training_failed"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class BaseModelError(TrainingError):
    """The base is not there, broken, or of another kind than the method needs."""

    code = "base_model"


class ConversationError(TrainingError):
    """This conversation cannot become a training sequence. Other rows may be fine."""

    code = "conversation"


class TemplateError(ConversationError):
    """The chat template refuses the conversation, or renders it so that trained turns cannot be told apart."""

    code = "chat_template"


class DoubleBosError(TemplateError):
    code = "double_bos"


class MissingStopTokenError(ConversationError):
    """A trained turn does not end in its stop token: the tuned model would never stop."""

    code = "missing_stop_token"


class TrainedShareError(ConversationError):
    """No token, or every token, would be trained."""

    code = "trained_share"


class TooLongError(ConversationError):
    """Cutting the conversation to the allowed length would cut away everything that is trained."""

    code = "too_long"


class DataError(TrainingError):
    """The examples as a whole cannot be trained on."""

    code = "data"


class SpecError(TrainingError):
    """What a run was told to do cannot be read or is not known."""

    code = "spec"


class HyperparametersError(TrainingError):
    """A value that cannot be meant, or a name that is not known."""

    code = "hyperparameters"


class DeviceError(TrainingError):
    """A GPU was asked for and is not there."""

    code = "device"


class StillRunningError(TrainingError):
    """Another process works for the same job and did not end in time."""

    code = "still_running"


class ResumeMismatchError(TrainingError):
    """The checkpoint was written by a run with other data, another base or other hyperparameters."""

    code = "resume_mismatch"


class BrokenCheckpointError(TrainingError):
    code = "broken_checkpoint"


class DiskError(TrainingError):
    """Something could not be written, most often because the disk is full."""

    code = "disk"


class TrainingMemoryError(TrainingError):
    """Out of memory. `details["suggestion"]` holds hyperparameters to try instead."""

    code = "out_of_memory"


class DivergedError(TrainingError):
    """The loss or the gradient is no longer a number."""

    code = "diverged"
