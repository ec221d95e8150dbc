"""A command as Typer makes it, but one that refuses empty values.

An empty path would mean the current folder, and an empty text nothing: both come from variables that are not set.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from clipsearch.errors import InputError


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
        return super().parse_args(ctx, args)


def _is_empty(value: object) -> bool:
    """Whether a value, or one of several, is an empty text."""
    return any(map(_is_empty, value)) if isinstance(value, list | tuple) else value == ""
