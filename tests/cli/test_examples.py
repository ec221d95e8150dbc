"""The worked examples: what commands print is shown as it is, and plain transformers code says the same."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "examples.md"
CLOSE = 0.003
"""How far numbers may differ: the index keeps float16, and a softmax makes more of it."""
END = "-- end of an example --"
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


def printed(block: str) -> str:
    """A console block without its commands."""
    return "\n".join(line for line in block.splitlines() if not line.startswith("$ "))


def come_in_order(wanted: list[float], found: list[float]) -> bool:
    """Whether `found` holds all of `wanted`, about, one after the other."""
    rest = iter(found)
    return all(any(number == pytest.approx(other, abs=CLOSE) for other in rest) for number in wanted)


def test_plain_transformers_code_says_the_same(environment: dict[str, str]) -> None:
    text = DOCUMENT.read_text("utf-8")
    _, *shown = blocks(text, "console")  # the first makes the index
    prelude, *examples = blocks(text, "python")
    code = prelude + "".join(f"{example}print({END!r})\n" for example in examples)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=REPOSITORY,
        env=environment | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    *said, rest = done.stdout.decode().split(f"{END}\n")
    assert rest == ""
    assert len(said) == len(shown) == 6
    for output, block in zip(said, map(printed, shown), strict=True):
        assert numbers(output)
        assert come_in_order(numbers(output), numbers(block)), f"{output}\n{block}"
        for word in re.findall(r"[a-z_]+(?:[/.][a-z_0-9/.]+)?", output):
            assert word in block


def test_the_comparison_of_numbers_can_fail() -> None:
    assert numbers("(200, 512) dog_1.png -0.0147 [0.5] 3.") == [200, 512, -0.0147, 0.5]
    assert come_in_order([1, 0.5], [0.2, 1.001, 7, 0.499])
    assert not come_in_order([1, 0.5], [0.5, 1])
    assert not come_in_order([0.5, 0.5], [0.5])
