"""README and command reference show what the commands print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY
from warm import Warm

from clipsearch.cli import make_app
from clipsearch.images.extensions import EXTENSIONS
from scripts.update_docs import DOCUMENTS, refreshed, sample_folder

NUMBER = re.compile(r"-?\d+\.\d+")


def comparable(text: str) -> str:
    """`text` without times and sizes, and with decimals that differ a little from machine to machine as `#`."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "# UTC", text)
    text = re.sub(r"\d+\.\d s$", "# s", text, flags=re.MULTILINE)
    return NUMBER.sub("#", re.sub(r"\d+\.\d MB", "# MB", text))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_shown_output_is_what_is_printed(name: str, tmp_path: Path, environment: dict[str, str], forked: Path) -> None:
    text = (REPOSITORY / name).read_text("utf-8")
    now = refreshed(text, sample_folder(tmp_path), environment, forked)
    assert comparable(now) == comparable(text), "run: python scripts/update_docs.py"
    scores = [[float(n) for n in NUMBER.findall(line)] for line in text.splitlines() if "sample-images/" in line]
    scores_now = [[float(n) for n in NUMBER.findall(line)] for line in now.splitlines() if "sample-images/" in line]
    for shown, printed in zip(scores, scores_now, strict=True):
        assert printed == pytest.approx(shown, abs=0.002)


def test_every_command_is_documented() -> None:
    reference = (REPOSITORY / "docs" / "commands.md").read_text("utf-8")
    for command in make_app().registered_commands:
        assert f"$ clipsearch {command.name} --help" in reference


@pytest.mark.parametrize("name", ["README.md", "docs/python.md"])
def test_python_examples_run(name: str, sample_index: Path, with_torch: Warm, tmp_path: Path) -> None:
    code = "".join(
        re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / name).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    )
    assert "search(" in code
    here = shutil.copytree(sample_index, tmp_path / "here")  # some examples write beside the index
    done = with_torch.run(["-c", f"import warnings\nwarnings.simplefilter('error')\n{code}"], cwd=here, timeout=300)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert "dog_" in done.stdout.decode()


@pytest.fixture
def shells(environment: dict[str, str], forked: Path) -> dict[str, str]:
    """The environment of a shell that finds the command."""
    return environment | {"PATH": f"{forked}{os.pathsep}{environment.get('PATH', '')}"}


def follow(recipe: int, asked: str, shell: str, environment: dict[str, str], cwd: Path) -> tuple[int, bool, bytes]:
    """Exit code, whether the script came to its end, and stderr of one of the recipes for CI."""
    (cwd / "wanted.txt").write_text(f"{asked}\n", "utf-8")
    part = (REPOSITORY / "README.md").read_text("utf-8").split("**Is it there at all?**")[1]
    script = re.findall(r"^```sh\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)[recipe]
    script = script.replace("a watermark", asked.splitlines()[0]) + "echo passed\n"
    done = subprocess.run(
        [f"/bin/{shell}", "-e", "-c", script],
        cwd=cwd,
        env=environment,
        capture_output=True,
        check=False,
    )
    return done.returncode, b"passed" in done.stdout, done.stderr


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_recipes_for_ci_decide_as_they_say(
    shell: str, sample_index: Path, shells: dict[str, str], tmp_path: Path
) -> None:
    here = shells | {"CLIPSEARCH_INDEX": str(sample_index)}
    assert follow(0, "a watermark", shell, here, tmp_path)[:2] == (0, True)
    assert follow(0, "a red car", shell, here, tmp_path)[:2] == (1, False)  # which is there, so this job fails
    assert follow(1, "a red car\na pizza", shell, here, tmp_path)[:2] == (0, True)
    assert follow(1, "a red car\na watermark", shell, here, tmp_path)[:2] == (1, False)


@pytest.mark.parametrize("recipe", [0, 1])
def test_recipes_for_ci_fail_where_nothing_can_be_found_out(
    recipe: int, shells: dict[str, str], tmp_path: Path
) -> None:
    code, passed, said = follow(recipe, "a red car", "bash", shells, tmp_path)
    assert code != 0
    assert not passed
    assert b"No index" in said


@pytest.mark.parametrize("path", ["README.md", *(f"docs/{p.name}" for p in (REPOSITORY / "docs").glob("*.md"))])
def test_links_lead_somewhere(path: str) -> None:
    file = REPOSITORY / path
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text("utf-8")):
        assert (file.parent / target).exists(), target


def test_every_extension_is_documented() -> None:
    table = (REPOSITORY / "docs" / "formats.md").read_text("utf-8").split("## Who decodes what")[0]
    assert set(re.findall(r"`(\.[a-z0-9]+)`", table)) == EXTENSIONS
