"""A built wheel holds everything and works away from the source tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY, SAMPLES


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_package_model_and_licence_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "clipsearch/data/picturebook/model.safetensors" in names
    assert "clipsearch/py.typed" in names
    assert "clipsearch/output/gallery.html" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"clipsearch"}


def test_the_installed_wheel_works_from_another_directory(
    wheel: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    shutil.copytree(SAMPLES / "dogs", tmp_path / "dogs")
    env = environment | {"PYTHONPATH": str(site)}

    def clipsearch(*arguments: str) -> bytes:
        command = [str(site / "bin" / "clipsearch"), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True).stdout

    where = "import clipsearch, os; print(os.path.dirname(clipsearch.__file__))"
    used = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=env, check=True, capture_output=True)
    assert os.fsdecode(used.stdout.strip()) == str(site / "clipsearch")
    summary = json.loads(clipsearch("index", "dogs", "--model", "picturebook", "--json"))
    assert summary["embedded"] == 9
    hits = json.loads(clipsearch("query", "a dog is sleeping", "-k", "3", "--json"))
    assert {Path(hit["path"]).stem for hit in hits} == {"dog_0", "dog_1", "dog_2"}
