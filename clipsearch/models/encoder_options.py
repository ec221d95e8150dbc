"""The options of a model: device, precision, batch size and engine.

Needs no torch: whether this machine has the device is checked when a model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from clipsearch.errors import InputError
from clipsearch.models.devices import check_device


class Precision(StrEnum):
    """The types of numbers to compute with."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Engine(StrEnum):
    """The libraries that embed images."""

    AUTO = "auto"
    NUMPY = "numpy"
    TORCH = "torch"


@dataclass(frozen=True)
class EncoderOptions:
    """The options with which a model computes.

    Attributes:
        device: One of auto, cpu, cuda, cuda:N (one of several GPUs) and mps.
        precision: One of auto, fp32, bf16 and fp16: the type of numbers.
        batch_size: Number of images that are computed together; None for the default of the device.
        exact: Whether images are decoded and resized in full and computed in fp32, without shortcuts.
        engine: One of auto, numpy and torch: the library that embeds images.

    Raises:
        DeviceError: `device` is not a name of a device.
        InputError: another value is invalid, or two values contradict each other.
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    exact: bool = False
    engine: str = "auto"

    def __post_init__(self) -> None:
        check_device(self.device)
        for what, given, known in (("precision", self.precision, [*Precision]), ("engine", self.engine, [*Engine])):
            if given not in known:
                raise InputError(f"Unknown {what} {given!r}; choose one of: {', '.join(known)}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"A batch has one image or more, not {self.batch_size}.")
        if self.exact:
            if self.precision not in ("auto", "fp32"):
                raise InputError(f"What is exact is computed in fp32, not in {self.precision}.", hint="exact")
            object.__setattr__(self, "precision", "fp32")


BY_ITSELF = EncoderOptions()
"""Default options: device, precision and engine are chosen automatically."""
FOR_QUERIES = EncoderOptions(device="cpu")
"""Options for queries, which have few images."""
