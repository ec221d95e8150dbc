"""The class of commands: a Typer command that refuses empty values.

An empty path would mean the current folder, and an empty text nothing. Both usually come from an unset shell variable.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from typer.core import TyperCommand

from clipsearch.errors import InputError
from clipsearch.system.places import current_folder

_TEXTS = ("LABEL", "TERM", "TEXT")
"""Metavars of options and arguments whose values are words; all other texts are names of files."""


class Command(TyperCommand):
    """A command that checks the values of all its options and arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  (its class is private)
        """Parse arguments as Typer does, after checking them.

        Raises:
            InputError: a value is empty.
        """
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for parameter in self.get_params(ctx):
            if _is_empty(given.get(str(parameter.name))) and not ctx.resilient_parsing:
                is_option = parameter.param_type_name == "option"
                name = max(parameter.opts, key=len) if is_option else parameter.human_readable_name.strip("[.]")
                raise InputError(f"{name} is empty. Perhaps it comes from a variable that is not set.")
        rest = super().parse_args(ctx, args)
        for parameter in self.get_params(ctx):
            if str(parameter.metavar).strip("[.]") in _TEXTS:
                ctx.params[str(parameter.name)] = _as_utf8(ctx.params[str(parameter.name)])
        return rest

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  (its class is private)
        """Run the command with the log shown, with decoders kept from writing to stderr, and with relative paths."""
        from clipsearch.cli.log import show_log  # like the next two, not needed for help
        from clipsearch.images.codecs.quiet import quiet_decoders
        from clipsearch.output.paths import show_from

        show_log()
        with suppress(InputError):  # the current folder was deleted, so no path is relative to it
            show_from(current_folder())
        with quiet_decoders():
            return super().invoke(ctx)


def _as_utf8(value: object) -> object:
    """Decode words that were typed in UTF-8 although the locale is ASCII (`LC_ALL=C PYTHONUTF8=0`)."""
    if isinstance(value, list | tuple):
        return type(value)(map(_as_utf8, value))
    if not isinstance(value, str):
        return value
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeError:  # it is not UTF-8, or is decoded already
        return value


def _is_empty(value: object) -> bool:
    """Whether a value, or one value of a list, is an empty text."""
    return any(map(_is_empty, value)) if isinstance(value, list | tuple) else value == ""
