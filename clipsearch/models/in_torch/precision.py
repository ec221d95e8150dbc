"""Choice of the device and the precision of a model, with reasons."""

from __future__ import annotations

from typing import NamedTuple

import torch

from clipsearch.errors import DeviceError, InputError
from clipsearch.models.devices import check_device
from clipsearch.models.in_torch.speed import layer_times

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_UNITS = {"bf16": ("amx_bf16", "avx512_bf16"), "fp16": ("amx_fp16", "avx512_fp16")}
"""Extensions of x86 processors that multiply such numbers; without one of them fp32 is much faster."""
_BF16_CAPABILITY = 8
"""NVIDIA's GPUs multiply bf16 from this compute capability on."""
_RANK = {"cpu": 0, "mps": 1, "cuda": 2}
"""Order of preference of "auto"; the largest number is taken first."""
_LEAST_WIDTH = 512
"""Width below which fp32 is used: for narrower towers decoding takes most of the time. ViT-B/32 has 768."""
_TIMES_AS_FAST = 1.2
"""Least ratio of the speeds of bf16 and fp32 for which a processor uses bf16. The ratio is measured within a tenth, and
the saved time has to be worth the rounding: decoding and start-up become no faster."""
_ASKED_FOR = "as asked for"


class Device(NamedTuple):
    """The device on which a model runs."""

    device: torch.device
    reason: str
    """Why, in words for the user."""


class Precision(NamedTuple):
    """The precision in which a model computes."""

    name: str
    """One of `PRECISIONS`."""
    reason: str
    """Why, in words for the user."""


def choose_device(wanted: str) -> Device:
    """Return the torch device named `wanted`, with its number if it is a GPU; "auto" is the first GPU, or else the CPU.

    Raises:
        DeviceError: the device is unknown, or this machine does not have it.
    """
    check_device(wanted)
    there = _devices()
    if wanted == "auto":
        first = max(there, key=lambda name: _RANK[name.partition(":")[0]])
        return Device(torch.device(first), there[first] or "no GPU that PyTorch sees")
    kind, _, number = wanted.partition(":")
    name = f"{kind}:{int(number or 0)}" if kind == "cuda" else kind
    if name not in there:
        seen = ", ".join(f"{name} ({title})" if title else name for name, title in there.items())
        way_out = "install PyTorch with CUDA" if kind == "cuda" and "cuda:0" not in there else "name one of these"
        raise DeviceError(
            f"No {wanted} device here (PyTorch {torch.__version__} sees: {seen}). Let auto choose, or {way_out}."
        )
    return Device(torch.device(name), f"{there[name]}, {_ASKED_FOR}" if there[name] else _ASKED_FOR)


def _devices() -> dict[str, str]:
    """Return the devices of this machine with their titles; the title of the CPU is empty."""
    there = {"cpu": ""}
    if torch.cuda.is_available():
        there |= {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    if torch.backends.mps.is_built() and torch.backends.mps.is_available():
        there["mps"] = "the GPU of this Mac"
    return there


def choose_precision(wanted: str, device: torch.device, width: int) -> Precision:
    """Choose the precision for a tower of `width` dimensions: `wanted`, or for "auto" one that is fast on `device`.

    Raises:
        InputError: `wanted` is unknown.
    """
    if wanted in PRECISIONS:
        return Precision(wanted, _ASKED_FOR + _drawback(wanted, device))
    if wanted != "auto":
        raise InputError(f"Unknown precision {wanted!r}; choose one of: auto, {', '.join(PRECISIONS)}.")
    if width < _LEAST_WIDTH:
        return Precision("fp32", "the model is small")
    return _fastest(device, width)


def _fastest(device: torch.device, width: int) -> Precision:
    if device.type == "cuda":
        if _multiplies_bf16(device):
            return Precision("bf16", "this GPU has bf16 units")
        return Precision("fp16", "this GPU has no bf16 units")
    if device.type == "mps":
        return Precision("fp32", "fewer bits were never measured on such a device")
    fp32, bf16 = (1000 * seconds for seconds in layer_times(width))
    if fp32 >= _TIMES_AS_FAST * bf16:
        return Precision("bf16", f"measured: a layer takes {bf16:.1f} ms, {fp32:.1f} ms in fp32")
    return Precision("fp32", f"measured: a layer takes {fp32:.1f} ms, {bf16:.1f} ms in bf16")


def _drawback(wanted: str, device: torch.device) -> str:
    """Return a known drawback of `wanted`, to be appended to a reason; empty if there is none."""
    if device.type == "cuda" and wanted == "bf16" and not _multiplies_bf16(device):
        return "; this GPU has no bf16 units"
    # Measured on x86 only: ViT-B/32 took 4 times as long in bf16 as in fp32, and 9 times in fp16.
    is_x86 = torch.cpu.get_capabilities().get("architecture") == "x86_64"
    if device.type == "cpu" and wanted in _UNITS and is_x86 and not _has_units(wanted):
        return f"; slower than fp32, for this processor has no {wanted} units"
    return ""


def _has_units(name: str) -> bool:
    """Return whether this processor has units for the precision `name`."""
    has = torch.cpu.get_capabilities()
    return any(has.get(unit) for unit in _UNITS[name])


def _multiplies_bf16(gpu: torch.device) -> bool:
    """Return whether this GPU has units for bf16. PyTorch's own function asks the current one of several GPUs."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(gpu)[0] >= _BF16_CAPABILITY
