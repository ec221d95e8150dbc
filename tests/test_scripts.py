"""The scripts borrow from the package and from the tests, which nothing else would notice when these move on."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY
from warm import Warm

SCRIPTS = sorted(path.stem for path in (REPOSITORY / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_finds_all_that_it_imports(script: str, with_torch: Warm) -> None:
    done = with_torch.run(["-c", f"import {script}"], cwd=REPOSITORY / "scripts", timeout=300)
    assert done.returncode == 0, done.stderr.decode()
