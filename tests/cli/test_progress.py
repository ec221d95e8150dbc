"""The rate that a progress bar shows: that of images that took work, and of no others."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

import pytest
from terminal import on_a_terminal
from warm import Warm

from clipsearch.cli.progress import ProgressBar, _Rate


class Screen(io.StringIO):
    """A terminal, as far as a progress bar asks."""

    def isatty(self) -> bool:
        return True


def rates(shown: str) -> list[str]:
    """What the bar said behind "images" each time that it was drawn, without control sequences."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    return [found[1] or "" for found in re.finditer(r"\d+/\d+ images(?:, (\d+)/s)?", plain)]


def test_what_comes_from_the_index_has_no_rate(tmp_path: Path, sample_index: Path, without_torch: Warm) -> None:
    known = next((sample_index / "sample-images" / "dogs").iterdir())
    for number in range(2000):  # so many that their rate would be seen
        (tmp_path / f"{number}{known.suffix}").hardlink_to(known)
    done = on_a_terminal(
        *("score", tmp_path, "--text", "a dog"),
        cwd=sample_index,
        warm=without_torch,
        env={"TERM": "xterm"},
        stderr=True,
    )
    assert done.returncode == 0
    assert set(rates(done.stdout.decode())) == {""}  # it was drawn, without any


def test_images_that_take_work_have_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    with ProgressBar() as bar:
        bar.start(100_010)
        bar.advance(100_000, known=100_000)
        bar.advance(5, unreadable=5)
        bar.advance(1)
        time.sleep(0.2)
        bar.advance(4)
    # All that was drawn last, and only that, has the rate of the last five.
    found = rates(screen.getvalue())
    assert found[0] == ""
    assert 1 <= int(found[-1]) <= 20


def test_the_images_of_a_batch_come_at_once_and_count_as_one_step() -> None:
    rate = _Rate()
    for batch in range(4):
        for image in range(16):
            rate.add(1, batch * 2 + image * 1e-5)
            assert batch or str(rate) == ""
    assert str(rate) == ", 8/s"


def test_a_rate_is_that_of_the_last_half_minute() -> None:
    rate = _Rate()
    for second in range(100):
        rate.add(5 if second < 50 else 20, second)
    assert str(rate) == ", 20/s"
    rate.add(0, 1000)
    assert str(rate) == ", 20/s"  # nothing took work meanwhile
