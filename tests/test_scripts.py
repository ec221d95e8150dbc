"""The scripts borrow from the package and from the tests, which nothing else would notice when these move on."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import REPOSITORY

SCRIPTS = sorted(path.stem for path in (REPOSITORY / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_finds_all_that_it_imports(script: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", f"import {script}"]
    done = subprocess.run(command, cwd=REPOSITORY / "scripts", env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
