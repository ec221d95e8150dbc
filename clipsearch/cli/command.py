"""A command as Typer makes it, but one that refuses empty values.

An empty path would mean the current folder, and an empty text nothing: both come from variables that are not set.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from typer.core import TyperCommand

from clipsearch.errors import InputError
from clipsearch.system.places import current_folder

_TEXTS = ("LABEL", "TERM", "TEXT")
"""What stands for words in help; all other texts are names."""


class Command(TyperCommand):
    """Of every option and argument, those that are added later, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  (its class is private)
        """As Typer does it.

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
        """Run the command. What is logged is shown, what decoders write to stderr is not, and paths are relative."""
        from clipsearch.cli.log import show_log  # not for help, as the next
        from clipsearch.images.quiet import quiet_decoders
        from clipsearch.output.paths import show_from

        show_log()
        with suppress(InputError):  # the current folder was deleted, and nothing lies below it
            show_from(current_folder())
        with quiet_decoders():
            return super().invoke(ctx)


def _as_utf8(value: object) -> object:
    """Words as they were typed, where the locale knows no letters but ASCII (`LC_ALL=C PYTHONUTF8=0`)."""
    if isinstance(value, list | tuple):
        return type(value)(map(_as_utf8, value))
    if not isinstance(value, str):
        return value
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeError:  # it is not UTF-8, or is as it should be
        return value


def _is_empty(value: object) -> bool:
    """Whether a value, or one of several, is an empty text."""
    return any(map(_is_empty, value)) if isinstance(value, list | tuple) else value == ""
