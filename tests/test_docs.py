"""README and command reference show what the commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from clipsearch.cli import app
from clipsearch.images.finding import EXTENSIONS
from scripts.update_docs import DOCUMENTS, refreshed, sample_folder

NUMBER = re.compile(r"-?\d+\.\d+")


def comparable(text: str) -> str:
    """`text` without times and sizes, and with decimals that differ a little from machine to machine as `#`."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "# UTC", text)
    text = re.sub(r"\d+\.\d s$", "# s", text, flags=re.MULTILINE)
    return NUMBER.sub("#", re.sub(r"\d+\.\d MB", "# MB", text))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_shown_output_is_what_is_printed(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    text = (REPOSITORY / name).read_text("utf-8")
    now = refreshed(text, sample_folder(tmp_path), environment)
    assert comparable(now) == comparable(text), "run: python scripts/update_docs.py"
    scores = [[float(n) for n in NUMBER.findall(line)] for line in text.splitlines() if "sample-images/" in line]
    scores_now = [[float(n) for n in NUMBER.findall(line)] for line in now.splitlines() if "sample-images/" in line]
    for shown, printed in zip(scores, scores_now, strict=True):
        assert printed == pytest.approx(shown, abs=0.002)


def test_every_command_is_documented() -> None:
    reference = (REPOSITORY / "docs" / "commands.md").read_text("utf-8")
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"$ clipsearch {command.callback.__name__} --help" in reference


@pytest.mark.parametrize("path", ["README.md", *(f"docs/{p.name}" for p in (REPOSITORY / "docs").glob("*.md"))])
def test_links_lead_somewhere(path: str) -> None:
    file = REPOSITORY / path
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text("utf-8")):
        assert (file.parent / target).exists(), target


def test_every_extension_is_documented() -> None:
    table = (REPOSITORY / "docs" / "formats.md").read_text("utf-8").split("No other decoder")[0]
    assert set(re.findall(r"`(\.[a-z0-9]+)`", table)) == EXTENSIONS
