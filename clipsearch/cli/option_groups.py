"""Groups of options that several commands share: dataclasses in which each field is an option of Typer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from typing import Any, get_type_hints


@cache
def _parameters(group: Any) -> list[inspect.Parameter]:  # noqa: ANN401  (a dataclass)
    """Return the fields of a group as keyword parameters; cached, because this takes a millisecond."""
    options = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=options[field.name]
        )
        for field in fields(group)
    ]


def grouped(command: Callable[..., int]) -> Callable[..., int]:
    """Make the fields of each parameter that is a dataclass options of `command`, for Typer."""
    groups: dict[str, Any] = {}
    parameters = []
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        group = hints[name]
        if not is_dataclass(group):
            parameters.append(parameter.replace(annotation=group))
            continue
        groups[name] = group
        parameters += _parameters(hints[name])

    @wraps(command)
    def run(**values: Any) -> int:  # noqa: ANN401  (Typer's)
        packed = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        return command(**values, **packed)

    # Typer calls `signature` and `get_type_hints`, which read these.
    run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
