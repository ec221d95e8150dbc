"""The scripts borrow from the package and from the tests, which nothing else would notice when these move on.

And tests rely on processes that they fork commands from.
"""

from __future__ import annotations

import pytest
from conftest import REPOSITORY, SERVERS
from warm import Warm

SCRIPTS = sorted(path.stem for path in (REPOSITORY / "scripts").glob("*.py"))


def test_what_commands_without_torch_are_forked_from_is_small(
    environment: dict[str, str], pytestconfig: pytest.Config
) -> None:
    """The more memory a process has, the longer forking takes: with PyTorch in it, four times as long."""
    with Warm(pytestconfig.stash[SERVERS][1], environment) as warm:
        done = warm.run(["-c", "import sys; print({'torch', 'transformers', 'scipy'} & set(sys.modules))"], timeout=300)
    assert (done.stdout, done.stderr) == (b"set()\n", b"")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_finds_all_that_it_imports(script: str, with_torch: Warm) -> None:
    done = with_torch.run(["-c", f"import {script}"], cwd=REPOSITORY / "scripts", timeout=300)
    assert done.returncode == 0, done.stderr.decode()
