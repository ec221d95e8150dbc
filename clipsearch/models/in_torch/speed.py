"""Measurement of a layer's time in fp32 and in bf16 on this processor, made once and kept in the user's cache.

The names of a processor's extensions do not suffice: one that multiplies bf16 may take longer for the operations
between the products. Knows nothing of the decision that follows from the times.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from clipsearch.models.in_numpy.sealed import cache_folder
from clipsearch.system.flushing import replace_flushed

_log = logging.getLogger(__name__)

_NOTE = "precision.json"
_TOKENS, _HEAD = 50, 64
"""Number of tokens of one image and size of a head in ViT-B/32. More images give the same ratio within a sixth."""
_ROUNDS = 4
"""Number of measurements, of which the shortest counts. One more before them is for warming up."""
_clock = time.perf_counter if sys.platform == "win32" else time.thread_time
"""The time of this thread alone, so that other work on the machine has no effect; on Windows it has steps of 16 ms."""


class LayerTimes(NamedTuple):
    """Seconds for one layer and one image on one core."""

    fp32: float
    bf16: float


def layer_times(width: int) -> LayerTimes:
    """Return the times of a layer of `width` dimensions on this processor; measure them if the cache lacks them."""
    note, key = cache_folder() / _NOTE, _key(width)
    known = _read(note)
    times = _times(known.get(key))
    if times is None:
        times = _measured(width)
        _log.info("speed: a layer of %d dimensions measured in fp32 and bf16, remembered in %s", width, note)
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            replace_flushed(note, json.dumps(known | {key: times._asdict()}, indent=1).encode())
    return times


def _key(width: int) -> str:
    """Return what the times depend on, as far as it is known; virtual machines give processors vague names."""
    has = torch.cpu.get_capabilities()
    extensions = " ".join(sorted(name for name, there in has.items() if there is True))
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "none")
    return f"{_processor()}; {extensions}; limit {limit}; torch {torch.__version__}; width {width}"


def _processor() -> str:
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        if names := [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]:
            return names[0]
    return platform.processor() or platform.machine()


def _read(note: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        known = json.loads(note.read_bytes())
        if isinstance(known, dict):
            return known
    return {}


def _times(known: object) -> LayerTimes | None:
    """Return times from the cache; None if they are missing or damaged."""
    if not isinstance(known, dict) or known.keys() != set(LayerTimes._fields):
        return None
    found = LayerTimes(**known)
    sound = all(isinstance(one, float) and math.isfinite(one) and one > 0 for one in found)
    return found if sound else None


@torch.inference_mode()
def _measured(width: int) -> LayerTimes:
    """Measure fp32 and bf16 in turns on one core, because `index` gives each core a batch of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        layers = [_layer(width, dtype) for dtype in (torch.float32, torch.bfloat16)]
        rounds = [[_seconds(layer) for layer in layers] for _ in range(1 + _ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    return LayerTimes(*(min(times) for times in zip(*rounds[1:], strict=True)))


def _seconds(work: Callable[[], object]) -> float:
    began = _clock()
    work()
    return max(_clock() - began, 1e-9)


def _layer(width: int, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """Make a layer like those of image towers, without biases; the values of its weights have no effect on the time."""

    def weights(rows: int, columns: int) -> torch.Tensor:
        return torch.full((rows, columns), 0.01, dtype=dtype)

    heads = max(1, width // _HEAD)
    inner = heads * _HEAD
    qkv, out = weights(3 * inner, width), weights(width, inner)
    up, down = weights(4 * width, width), weights(width, 4 * width)
    tokens = weights(1, _TOKENS * width).view(1, _TOKENS, width)

    def layer() -> torch.Tensor:
        seen = functional.linear(functional.layer_norm(tokens, (width,)), qkv)
        q, k, v = seen.view(1, _TOKENS, 3, heads, _HEAD).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, _TOKENS, inner)
        x = functional.linear(mixed, out).add_(tokens)
        seen = functional.gelu(functional.linear(functional.layer_norm(x, (width,)), up))
        return functional.linear(seen, down).add_(x)

    return layer
