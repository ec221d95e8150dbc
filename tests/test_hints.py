"""What to type stands in one table, and nowhere outside the command line."""

from __future__ import annotations

import ast
import logging
import re
import string
from collections.abc import Iterator
from functools import cache
from typing import TypeGuard

import pytest
from test_architecture import MODULES, folder

from clipsearch.cli import _COMMANDS
from clipsearch.cli.log import show_log
from clipsearch.errors import InputError
from clipsearch.output.hints import HINTS, with_hints, with_option

FOR_THE_COMMAND_LINE = {"output.hints", "output.reports", "output.terminal.detection"}
CORE = sorted(name for name in MODULES if folder(name) not in ("cli", "server") and name not in FOR_THE_COMMAND_LINE)
TYPED = re.compile(rf"(?<![\w-])--[a-z]|clipsearch ({'|'.join(_COMMANDS)})\b|`clipsearch`")
"""An option, or a command."""


@cache
def parsed(name: str) -> ast.Module:
    """The code of a module; not before a test wants it, or every worker would parse all modules."""
    return ast.parse(MODULES[name].read_text("utf-8"))


def texts(tree: ast.AST) -> Iterator[str]:
    """All string literals, also docstrings and the fixed parts of f-strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def hints(tree: ast.AST) -> Iterator[tuple[set[str], set[str]]]:
    """The keys that each error, finding or warning may carry, and the names of its facts."""
    for node in ast.walk(tree):
        given: dict[str, ast.expr] = {}
        if isinstance(node, ast.Call):
            given = {str(one.arg): one.value for one in node.keywords}
        elif isinstance(node, ast.Dict):  # `extra` of what is logged
            given = {next(texts(key)): value for key, value in zip(node.keys, node.values, strict=True) if is_text(key)}
        if "hint" in given:
            facts = set(given) | set(texts(given["facts"]) if "facts" in given else ())
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
                facts |= {"folder", "model"}  # which the report has
            yield set(texts(given["hint"])), facts


def is_text(node: ast.expr | None) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize("name", CORE)
def test_the_core_names_no_option_and_no_command(name: str) -> None:
    assert not [text for text in texts(parsed(name)) if TYPED.search(text)]


def test_each_hint_has_an_entry_with_facts_that_the_error_carries() -> None:
    for name in MODULES:
        for keys, facts in hints(parsed(name)):
            for key in keys:
                needed = {field for _, field, *_ in string.Formatter().parse(HINTS[key]) if field}
                assert needed <= facts, (name, key)


def test_each_entry_is_used() -> None:
    used = {text for name in MODULES if name != "output.hints" for text in texts(parsed(name))}
    assert not HINTS.keys() - used


def test_an_error_is_whole_without_its_hint_and_what_is_typed_is_quoted() -> None:
    error = InputError("It is gone.", hint=("gone", "wait"), folder=b"/my pictures")
    assert str(error) == "It is gone."
    assert (
        with_hints(error) == f"It is gone. If they are gone for good: clipsearch forget '/my pictures' {HINTS['wait']}"
    )


def test_a_warning_is_said_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("clipsearch")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(log, name, getattr(log, name))  # as it was, afterwards
    show_log()
    log.warning("%d left.", 3, extra={"hint": "gone", "facts": {"folder": "p"}})
    assert capsys.readouterr().err == "3 left. If they are gone for good: clipsearch forget p\n"


def test_a_reason_from_an_older_index_is_shown_as_it_is() -> None:
    for reason in ("damaged: 30 % of it is missing", "too large: 9 x 9 pixels, more than the limit of 5e-06 million"):
        shown = with_option(reason)
        assert re.fullmatch(rf"{re.escape(reason)} \(--[a-z-]+\)", shown)
        assert with_option(shown) == shown
    assert with_option("too large: there is not enough memory for it") == "too large: there is not enough memory for it"


HERE = re.compile(r"\b(getcwdb?|current_folder|Path\.cwd)\b")


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"api", "functions.vectors", "index_choice", "system.places"}))
def test_only_the_command_line_and_the_interface_for_programs_know_the_current_folder(name: str) -> None:
    text = MODULES[name].read_text("utf-8")
    assert folder(name) == "cli" or not HERE.search(text)
