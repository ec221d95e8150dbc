"""The worked examples: what commands print is shown as it is, and plain transformers code says the same."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Run, make_clip, paint
from warm import Warm

DOCUMENT = REPOSITORY / "docs" / "examples.md"
CLOSE = 0.003
"""How far numbers may differ: the index keeps float16, and a softmax makes more of it."""
PHI = "## The image tokens of Phi-3-vision"
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


STRICT = "import warnings\nwarnings.simplefilter('error')\n"


def test_plain_transformers_code_says_the_same(with_torch: Warm) -> None:
    text = DOCUMENT.read_text("utf-8").split(PHI)[0]
    _, *shown = blocks(text, "console")  # the first makes the index
    prelude, *examples = blocks(text, "python")
    code = prelude + "".join(f"{example}print({END!r})\n" for example in examples)
    done = with_torch.run(["-c", STRICT + code], cwd=REPOSITORY, timeout=300)
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


@pytest.fixture(scope="module")
def clip_336(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow CLIP of four layers with random weights that has the input and the patches of ViT-L/14-336."""
    return make_clip(tmp_path_factory.mktemp("models") / "336", layers=4, side=336, patch=14)


@pytest.mark.parametrize(("size", "grid"), [((640, 400), (3, 4)), ((120, 500), (8, 2)), ((50, 50), (4, 4))])
def test_phi_3s_tokens_are_made_of_the_views_that_embed_writes(
    *, size: tuple[int, int], grid: tuple[int, int], clip_336: Path, run: Run, with_torch: Warm, tmp_path: Path
) -> None:
    section = DOCUMENT.read_text("utf-8").split(PHI)[1]
    (command,), (code,) = blocks(section, "sh"), blocks(section, "python")
    paint(tmp_path / "picture.jpg", "red", size)
    program, *arguments = shlex.split(command)
    assert program == "clipsearch"
    arguments[arguments.index("--model") + 1] = str(clip_336)
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()

    ends = "\nnp.savez('made.npz', tokens=tokens, line_end=line_end, between=between)"
    done = with_torch.run(["-c", STRICT + code + ends], cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    h, w = grid
    assert done.stdout.decode() == f"({(h * w + 1) * 144 + 1 + (h + 1) * 12}, 3072)\n"
    made = np.load(tmp_path / "made.npz")
    with (tmp_path / "views.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["view"]), int(row["h"]), int(row["w"])) for row in rows] == [(i, h, w) for i in range(h * w + 1)]
    # Token by token: the four patches of one place, above one another in pairs.
    views = np.load(tmp_path / "views.npy")
    expected = []

    def add_line(first: int, count: int, line: int) -> None:
        for view in views[first : first + count]:
            for column in range(12):
                places = [(2 * line + down) * 24 + 2 * column + right for down in (0, 1) for right in (0, 1)]
                expected.append(np.concatenate([view[place] for place in places]))
        expected.append(made["line_end"])

    for row in range(h):
        for line in range(12):
            add_line(1 + row * w, w, line)
    expected.append(made["between"])
    for line in range(12):
        add_line(0, 1, line)
    np.testing.assert_array_equal(made["tokens"], np.stack(expected))
