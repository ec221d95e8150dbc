"""What needs an optional package says so, with the command that brings it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from clipsearch.images.codecs import optional_packages
from clipsearch.images.extensions import EXTENSIONS


def test_only_a_kind_whose_package_is_missing_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_there in (True, False):
        monkeypatch.setattr(optional_packages, "is_installed", lambda _extra, found=is_there: found)
        needed = {suffix: optional_packages.needed_extra(suffix) for suffix in sorted(EXTENSIONS)}
        assert {suffix for suffix, extra in needed.items() if extra} == (set() if is_there else {".jxl"})
    assert optional_packages.needed_extra(".JXL") == "jxl"
    assert optional_packages.install_command("jxl") == "pip install 'clipsearch[jxl]'"


def test_asking_imports_no_package() -> None:
    code = "import sys\nfrom clipsearch.images.codecs.optional_packages import needed_extra\n"
    code += "print(needed_extra('.jxl'))\n"
    loaded = "print('numpy' in sys.modules, 'imagecodecs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code + loaded], capture_output=True, text=True, check=True)
    expected = "None" if find_spec("imagecodecs") else "jxl"
    assert done.stdout.split() == [expected, "False", "False"]
