"""What a fresh interpreter loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def loaded_by(code: str, environment: dict[str, str], cwd: Path) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nprint('\\n'.join({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return set(done.stderr.decode().split())


HEAVY = {
    *("torch", "transformers", "pydantic", "huggingface_hub", "safetensors", "rich", "PIL", "pillow_heif", "rawpy"),
    *("filelock", "pathspec"),
}
COMMAND = """
import sys
from clipsearch.cli import run
sys.argv = {arguments!r}
code = run()
assert code == 0, code
"""
