"""On which device a model runs and in which numbers it computes, and why."""

from __future__ import annotations

from typing import NamedTuple

import torch

from clipsearch.errors import DeviceError, InputError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_UNITS = ("amx_bf16", "avx512_bf16")
"""Extensions of x86 processors that multiply bf16; without one of them it is slower than fp32."""
_LEAST_WIDTH = 512
"""Narrower towers gain little from fewer bits: decoding is what takes time. ViT-B/32 has 768."""


class Precision(NamedTuple):
    """What a model computes in."""

    name: str
    """One of `PRECISIONS`."""
    reason: str
    """For people."""


def choose_device(wanted: str) -> torch.device:
    """The torch device for `--device`.

    Raises:
        DeviceError: it is unknown or not there.
    """
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if wanted == "auto":
        return torch.device(there[-1])
    if wanted not in DEVICES:
        raise DeviceError(f"Unknown device {wanted!r}; choose one of: {', '.join(DEVICES)}.")
    if wanted not in there:
        raise DeviceError(
            f"No {wanted} device here (PyTorch {torch.__version__} sees: {', '.join(there)}). "
            "Leave --device away, or install PyTorch with CUDA."
        )
    return torch.device(wanted)


def choose_precision(wanted: str, device: torch.device, width: int) -> Precision:
    """What to compute a tower of `width` dimensions in: `wanted`, or with "auto" what the device is fast in.

    Raises:
        InputError: `wanted` is unknown.
    """
    if wanted in PRECISIONS:
        return Precision(wanted, "as asked for")
    if wanted != "auto":
        raise InputError(f"Unknown precision {wanted!r}; choose one of: auto, {', '.join(PRECISIONS)}.")
    if width < _LEAST_WIDTH:
        return Precision("fp32", "the model is small")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", "this GPU has bf16 units")
        return Precision("fp16", "this GPU has no bf16 units")
    units = [unit for unit in _BF16_UNITS if torch.cpu.get_capabilities().get(unit)]
    if units:
        return Precision("bf16", f"this processor has bf16 units: {units[0]}")
    return Precision("fp32", "this processor has no bf16 units")
