"""How the default precision of a processor is chosen: by a measurement, which is remembered."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from clipsearch.models.in_torch import speed
from clipsearch.models.in_torch.precision import choose_precision
from clipsearch.models.in_torch.speed import layer_times

CPU = torch.device("cpu")
WIDTH = 64
"""So small that a measurement takes next to no time."""


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where times are remembered; nothing is, yet."""
    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "precision.json"


def remember(note: Path, width: int, **times: object) -> None:
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({speed._key(width): times}))


def test_times_are_measured_once_and_remembered(note: Path, caplog: pytest.LogCaptureFixture) -> None:
    threads = torch.get_num_threads()
    caplog.set_level(logging.INFO, "clipsearch")
    first = layer_times(WIDTH)
    assert min(first) > 0
    (said,) = caplog.messages
    assert said.startswith(f"speed: a layer of {WIDTH} dimensions measured in fp32 and bf16")
    assert str(note) in said
    written = note.read_bytes()
    assert layer_times(WIDTH) == first
    assert len(caplog.messages) == 1
    assert note.read_bytes() == written
    layer_times(2 * WIDTH + 1)  # another width is another measurement; it need not be one of whole heads
    assert len(caplog.messages) == 2
    assert len(json.loads(note.read_bytes())) == 2
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("fp32", "bf16", "name", "reason"),
    [
        (0.010, 0.004, "bf16", "measured: a layer takes 4.0 ms, 10.0 ms in fp32"),
        (0.0121, 0.010, "bf16", "measured: a layer takes 10.0 ms, 12.1 ms in fp32"),
        (0.0119, 0.010, "fp32", "measured: a layer takes 11.9 ms, 10.0 ms in bf16"),
        (0.010, 0.010, "fp32", "measured: a layer takes 10.0 ms, 10.0 ms in bf16"),
        (0.010, 0.040, "fp32", "measured: a layer takes 10.0 ms, 40.0 ms in bf16"),
    ],
)
def test_what_was_measured_decides_and_nearly_the_same_is_fp32(
    note: Path, fp32: float, bf16: float, name: str, reason: str
) -> None:
    remember(note, 768, fp32=fp32, bf16=bf16)
    assert choose_precision("auto", CPU, 768) == (name, reason)
    assert choose_precision("fp32", CPU, 768) == ("fp32", "as asked for")


@pytest.mark.parametrize(
    "times",
    [
        {},
        {"fp32": 1.0},
        {"fp32": 1.0, "bf16": 2.0, "fp16": 3.0},
        {"fp32": 1.0, "bf16": "2.0"},
        {"fp32": 1.0, "bf16": None},
        {"fp32": 1.0, "bf16": 0.0},
        {"fp32": 1.0, "bf16": -1.0},
        {"fp32": float("nan"), "bf16": 1.0},
        {"fp32": float("inf"), "bf16": 1.0},
    ],
)
def test_damaged_times_are_measured_anew(note: Path, times: dict[str, object]) -> None:
    remember(note, WIDTH, **times)
    found = layer_times(WIDTH)
    assert max(found) < 1
    assert json.loads(note.read_bytes()) == {speed._key(WIDTH): found._asdict()}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_made_anew(note: Path, content: bytes) -> None:
    note.parent.mkdir()
    note.write_bytes(content)
    found = layer_times(WIDTH)
    assert json.loads(note.read_bytes()) == {speed._key(WIDTH): found._asdict()}


def test_times_of_another_torch_or_processor_are_not_used_and_stay(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("__version__", "1.0"),
        ("cpu.get_capabilities", lambda: {"architecture": "x86_64", "amx": True}),
    ):
        with monkeypatch.context() as other:
            other.setattr(f"torch.{name}", value)
            key = speed._key(WIDTH)
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps({key: {"fp32": 7.0, "bf16": 1.0}}))
        assert max(layer_times(WIDTH)) < 1
        assert json.loads(note.read_bytes())[key] == {"fp32": 7.0, "bf16": 1.0}


def test_a_cache_that_cannot_be_written_stops_nothing(note: Path) -> None:
    note.parent.write_text("a file where the folder would be")
    assert choose_precision("auto", CPU, 512).reason.startswith("measured: a layer takes ")
