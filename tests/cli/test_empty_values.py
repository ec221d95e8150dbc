"""An empty value is an error everywhere: a script's variable was not set, and no path means the current folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import Run, paint

from clipsearch import open_index
from clipsearch.cli import make_app
from clipsearch.errors import InputError


def parameters(command: Any, *name: str) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401  (click's, private)
    """Each option and argument of each command that takes a value."""
    for parameter in command.params:
        if not getattr(parameter, "is_flag", False):
            yield name, parameter
    for inner, other in getattr(command, "commands", {}).items():
        yield from parameters(other, *name, inner)


APP = typer.main.get_command(make_app())
ALL = list(parameters(APP))


@pytest.mark.parametrize(
    ("command", "parameter"), ALL, ids=[f"{' '.join(name)} {parameter.opts[0]}" for name, parameter in ALL]
)
def test_no_command_takes_an_empty_value(command: tuple[str, ...], parameter: Any) -> None:  # noqa: ANN401  (as above)
    values = ["", "something"][: max(1, parameter.nargs)]
    is_option = parameter.param_type_name == "option"
    arguments = [parameter.opts[0], *values] if is_option else ["something", ""] if parameter.nargs == -1 else [""]
    if command == ("import",) and parameter.name == "names":
        arguments = ["something", ""]
    context = APP.make_context("clipsearch", [*command, *arguments])
    # Of a group of commands the only options are choices, and nothing is none of them.
    message = "'' is not one of" if command == ("models",) else "is empty"
    with context, pytest.raises((InputError, typer.BadParameter)) as error:
        APP.invoke(context)
    assert message in str(error.value)


def test_commands_with_values_are_many() -> None:
    assert len(ALL) > 150


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["index", ""], "PATH"),
        (["forget", ""], "PATH"),
        (["query", "red", "--copy-to", ""], "--copy-to"),
        (["query", "red", "--copy-to="], "--copy-to"),
        (["query", "red", "--under", ""], "--under"),
        (["query", "red", "--index", ""], "--index"),
        (["query", "red", "--image", ""], "--image"),
        (["similar", ""], "IMAGE"),
        (["classify", "--indexed", "-l", "a", "-l", "b", "--move-into", ""], "--move-into"),
        (["classify", "--indexed", "-l", "a", "-l", ""], "--label"),
        (["classify", "", "-l", "a", "-l", "b"], "PATH"),
        (["embed", "pictures", "-o", ""], "--out"),
        (["eval", "captions.csv", "--images", ""], "--images"),
        (["import", "", ""], "VECTORS"),
        (["models", "show", ""], "NAME|PATH"),
    ],
)
def test_an_empty_value_is_an_error_of_one_line_that_names_it(
    run: Run, tmp_path: Path, arguments: list[str], name: str
) -> None:
    paint(tmp_path / "red.png", "red")
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"clipsearch: {name} ")
    assert done.stderr.count(b"\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["red.png"]


def test_an_environment_variable_that_is_empty_is_not_set(run: Run, sample_index: Path) -> None:
    empty = {"CLIPSEARCH_INDEX": "", "CLIPSEARCH_MODEL": "", "HF_HOME": ""}
    inner = sample_index / "sample-images" / "dogs"
    usual = run("query", "a dog", "--format", "paths", "-k", "all", cwd=inner)
    done = run("query", "a dog", "--format", "paths", "-k", "all", cwd=inner, env=empty)
    assert (done.returncode, done.stdout) == (0, usual.stdout)  # and only from this folder


def test_an_empty_setting_is_an_error(run: Run, tmp_path: Path) -> None:
    paint(tmp_path / "red.png", "red")
    (tmp_path / "clipsearch.toml").write_text('model = ""\n')
    done = run("index", ".", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(r"clipsearch\.toml: model .*''", done.stderr.decode())


def test_blank_lines_in_a_list_of_paths_are_none(run: Run, sample_index: Path) -> None:
    names = sample_index / "sample-images" / "dogs"
    paths = sorted(str(path) for path in names.iterdir() if path.suffix in (".jpg", ".png", ".webp"))
    done = run("query", "a dog", "-k", "all", "--format", "paths", "--files-from", "-", cwd=sample_index)
    assert (done.returncode, done.stdout) == (1, b"")  # standard input has nothing
    listed = sample_index.parent / f"{sample_index.name}-list"
    listed.write_text("\n\n" + "\n\n".join(paths[:2]) + "\n\n")
    done = run("query", "a dog", "-k", "all", "--format", "paths", "--files-from", listed, cwd=sample_index)
    assert len(done.stdout.splitlines()) == 2


def test_in_python_an_empty_path_is_an_error_too(sample_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample_index)
    with pytest.raises(InputError):
        open_index("")
