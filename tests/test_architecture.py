"""Imports flow downwards, folder by folder, and the query path stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY
from fresh import COMMAND, HEAVY, loaded_by

PACKAGE = REPOSITORY / "clipsearch"

LONGEST_BODY = 29
"""Lines of a function in the command line at most, without its options and docstring."""

# What the modules of each folder may import, besides one another. A folder that is not listed fails the test.
ALLOWED = {
    "errors": "",
    "unit": "",
    "system": "errors",
    "settings": "errors system",
    "images": "errors system images.codecs",
    "images.codecs": "errors system",
    "models": "errors models.disk",
    "models.disk": "errors system",
    "models.in_numpy": "errors unit system models models.disk",
    "models.in_torch": "errors system unit models models.disk models.in_numpy",
    "index": "errors system unit images images.codecs",
    "datasets": "errors system images",
    "exchange": "errors unit system images index datasets",
    "search": "errors system unit images images.codecs index models models.disk models.in_numpy models.in_torch",
    "tasks": "errors unit system images images.codecs datasets index search models models.disk models.in_numpy"
    " models.in_torch",
    "tasks.tuning": "errors unit system images datasets index search tasks models models.disk models.in_numpy"
    " models.in_torch",
    "tasks.imagining": "errors unit models.in_torch",
    "output": "errors system images images.codecs index search tasks models.disk",
    "output.terminal": "errors system images index search tasks output",
    "index_choice": "errors system index",
    "model_choice": "errors settings index search models.disk models.in_torch",
    "api": "errors system index_choice model_choice index search models models.disk models.in_numpy models.in_torch",
    "several_indexes": "errors index_choice index search api",
    "functions": "errors system index_choice images datasets index exchange search tasks tasks.imagining tasks.tuning"
    " models api",
    "distributed": "errors system model_choice images images.codecs index exchange search api models models.disk"
    " models.in_numpy models.in_torch",
    "server": "errors unit system images images.codecs index search output models api",
    "cli": "errors unit system settings index_choice images images.codecs datasets index exchange search tasks"
    " tasks.imagining tasks.tuning output output.terminal api several_indexes distributed models models.disk"
    " models.in_numpy server",
    "__init__": "errors system images images.codecs models search api several_indexes functions",
    "__main__": "cli",
}


def module(path: Path) -> str:
    """As in `import clipsearch.MODULE`; `__init__` for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)


MODULES = {module(path): path for path in PACKAGE.rglob("*.py")}


def folder(name: str) -> str:
    """The folder of a module, or itself where it lies at the top or is a folder."""
    above = name.rpartition(".")[0]
    return name if PACKAGE.joinpath(*name.split(".")).is_dir() or not above else above


def imports(path: Path) -> set[str]:
    """All modules of the package that a file imports, also inside functions and for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # What is imported from a folder is a module, or stands in the folder's __init__.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in inner if name.removeprefix("clipsearch.") in MODULES] or [str(node.module)]
        else:
            continue
        found |= {name.removeprefix("clipsearch.") for name in names if name.startswith("clipsearch.")}
    return found


@pytest.mark.parametrize("name", sorted({folder(name) for name in MODULES}))
def test_imports_flow_downwards(name: str) -> None:
    assert name in ALLOWED, f"give the folder {name} a place in the table"
    for one, path in MODULES.items():
        if folder(one) == name:
            others = {folder(other) for other in imports(path)} - {name}
            assert others <= set(ALLOWED[name].split()), one


def test_no_folder_imports_one_that_imports_it() -> None:
    TopologicalSorter({name: below.split() for name, below in ALLOWED.items()}).prepare()  # raises if there is a cycle


def test_no_module_imports_one_that_imports_it() -> None:
    TopologicalSorter({name: imports(path) - {name} for name, path in MODULES.items()}).prepare()


def test_only_few_folders_import_torch_and_transformers() -> None:
    for name, path in MODULES.items():
        text = path.read_text("utf-8")
        heavy = any(f"{word} {library}" in text for word in ("import", "from") for library in ("torch", "transformers"))
        assert not heavy or folder(name) in ("models.in_torch", "tasks.imagining", "tasks.tuning"), name


def test_only_one_folder_imports_ray() -> None:
    for name, path in MODULES.items():
        assert folder(name) == "distributed" or not re.search(r"\b(import|from) ray\b", path.read_text("utf-8")), name


def test_import_clipsearch_loads_nothing_heavy(environment: dict[str, str], tmp_path: Path) -> None:
    assert not loaded_by("import clipsearch", environment, tmp_path) & (HEAVY | {"numpy", "typer"})


@pytest.mark.parametrize(
    "command", [["--help"], ["query", "--help"], ["index", "--help"], ["models", "check", "--help"]]
)
def test_help_loads_no_library_of_ours(command: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    loaded = loaded_by(COMMAND.format(arguments=["clipsearch", *command]), environment, tmp_path)
    assert not loaded & (HEAVY | {"numpy", "tokenizers", "logging"})


def test_a_query_loads_no_model_library(sample_index: Path, environment: dict[str, str]) -> None:
    arguments = ["clipsearch", "query", "a dog is sleeping"]
    loaded = loaded_by(COMMAND.format(arguments=arguments), environment, sample_index)
    assert "tokenizers" in loaded  # it really answered
    assert not loaded & (HEAVY | {"csv", "html"})


def test_what_only_some_outputs_need_is_loaded_by_these(sample_index: Path, environment: dict[str, str]) -> None:
    def outputs(*options: str) -> set[str]:
        arguments = ["clipsearch", "query", "a dog is sleeping", *options]
        tell = "\nprint(*(name for name in sys.modules if name.startswith('clipsearch.output.')), file=sys.stderr)"
        code = COMMAND.format(arguments=arguments) + tell
        return {name.rpartition(".")[2] for name in loaded_by(code, environment, sample_index) if "output." in name}

    assert outputs() == outputs("--format", "csv") == outputs("--json") == {"hits", "paths", "rows"}
    assert outputs("--format", "table") == {"hits", "paths", "rows", "table"}


def test_an_image_that_the_index_knows_needs_no_model(sample_index: Path, environment: dict[str, str]) -> None:
    picture = "sample-images/dogs/dog_0.webp"
    for arguments in (["similar", picture], ["query", "in the snow", "--image", picture]):
        code = COMMAND.format(arguments=["clipsearch", *arguments])
        assert not loaded_by(code, environment, sample_index) & HEAVY


def test_an_index_run_without_work_loads_no_model_library(sample_index: Path, environment: dict[str, str]) -> None:
    arguments = ["clipsearch", "index"]
    loaded = loaded_by(COMMAND.format(arguments=arguments), environment, sample_index)
    assert not loaded & {"torch", "transformers", "PIL", "pillow_heif", "rawpy"}


NOTE_THREADS = """
import os, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "numpy":
            print("threads:", os.environ.get("OPENBLAS_NUM_THREADS"), file=sys.stderr)
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(
    ("arguments", "threads"),
    [
        (["query", "a dog is sleeping"], "1"),
        (["similar", "sample-images/dogs/dog_0.webp"], "1"),
        (["score", "sample-images/dogs/dog_0.webp", "--text", "a dog"], "1"),
        (["duplicates"], "None"),
    ],
)
def test_blas_is_told_of_its_threads_before_numpy_is_imported(
    arguments: list[str], threads: str, sample_index: Path, environment: dict[str, str]
) -> None:
    code = NOTE_THREADS + COMMAND.format(arguments=["clipsearch", *arguments])
    kept = {name: value for name, value in environment.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=sample_index, env=kept, capture_output=True, check=False)
    assert f"threads: {threads}\n".encode() in done.stderr
    assert done.stderr.count(b"threads:") == 1


def test_commands_hand_over_and_do_nothing_long_themselves() -> None:
    long = {}
    for path in (PACKAGE / "cli").glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                first = function.body[ast.get_docstring(function) is not None and len(function.body) > 1]
                lines = (function.end_lineno or 0) - first.lineno + 1
                if lines > LONGEST_BODY:
                    long[f"{path.name}: {function.name}"] = lines
    assert long == {}
