"""Reading of pickles of plain data without running them. Knows nothing of what the data means.

A pickle is a program: unpickling calls whatever it names. This module does not unpickle. It follows the few operations
that build dicts, lists, texts, numbers and NumPy arrays of bytes, and refuses everything else. No name in the file
is ever looked up, so there is nothing that a hostile one could call.

The standard library's `pickle.Unpickler` with an allow-list in `find_class` would be shorter, and was tried: it runs
nothing either, but its list is no bound. Nine bytes make it ask for 32 GB (a place in its memory, `LONG_BINPUT`), a
call of the allowed `_reconstruct` for as much as it likes, and a megabyte of nested tuples as the key of a dict ends
the process (SIGSEGV in `hash`).
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_RECONSTRUCT, _NDARRAY, _DTYPE = "numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"
_NAMES = {
    _RECONSTRUCT: _RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _RECONSTRUCT,  # since NumPy 2
    _NDARRAY: _NDARRAY,
    _DTYPE: _DTYPE,
}
"""Names that a pickled uint8 array contains; they are compared and never imported."""
_PLAIN = (
    *("BININT", "BININT1", "BININT2", "LONG1"),
    *("BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
)
"""Operations that push their argument as a value."""
_PYTHON_2_STRINGS = ("SHORT_BINSTRING", "BINSTRING")
_NOTHING = ("PROTO", "FRAME")
_LONGEST = 100
"""Characters of a name that an error shows."""
_NO_BYTES = "it asks for an object that is no array of bytes"


class _Name:
    """A name that the pickle would call; nothing is called here."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Array:
    """An array, whose content follows in a later operation."""

    def __init__(self) -> None:
        self.value: npt.NDArray[np.uint8] | None = None


class _Bytes:
    """The data type uint8."""


def read_dict(content: bytes) -> dict[str, Any]:
    """Read the dict in a pickle of protocol 2 to 4, written by Python 2 or 3; keys are str.

    Values are lists, tuples, dicts, ints, bools, None, str, bytes (also what was `str` in Python 2) and, directly in
    the dict, uint8 arrays.

    Raises:
        ValueError: it is no such pickle, is damaged, or contains anything else; the message says what.
    """
    try:
        found = _Machine().run(content)
    except (IndexError, KeyError, OverflowError) as error:  # it refers to values that are not there
        raise ValueError("it is damaged") from error
    if not isinstance(found, dict):
        raise ValueError("it holds no dict")  # noqa: TRY004  (the content is wrong, not a type of ours)
    return {
        key.decode("latin-1") if isinstance(key, bytes) else key: value.value if isinstance(value, _Array) else value
        for key, value in found.items()
    }


class _Machine:
    """The pickle machine: a stack, and a memory of values that are used again."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}
        push = self._stack.append
        self._actions: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(_NOTHING, lambda _: None),
            **dict.fromkeys(_PLAIN, push),
            **dict.fromkeys(_PYTHON_2_STRINGS, lambda text: push(text.encode("latin-1"))),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._remember),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda place: push(self._memory[place])),
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_LIST": lambda _: push([]),
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "EMPTY_TUPLE": lambda _: push(()),
            "TUPLE1": lambda _: push(tuple(self._last(1))),
            "TUPLE2": lambda _: push(tuple(self._last(2))),
            "TUPLE3": lambda _: push(tuple(self._last(3))),
            "TUPLE": lambda _: push(tuple(self._since_mark())),
            "APPEND": lambda _: self._append(self._last(1)),
            "APPENDS": lambda _: self._append(self._since_mark()),
            "SETITEM": lambda _: self._set_items(self._last(2)),
            "SETITEMS": lambda _: self._set_items(self._since_mark()),
            "MEMOIZE": lambda _: self._remember(len(self._memory)),
            "GLOBAL": self._name,
            "STACK_GLOBAL": lambda _: self._name(_joined(*self._last(2))),
            "REDUCE": lambda _: self._call(*self._last(2)),
            "BUILD": lambda _: self._build(*self._last(1)),
        }

    def run(self, content: bytes) -> object:
        """Execute the operations, and return the value that is on the stack at the end."""
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "STOP":
                return self._stack.pop()
            if operation.name not in self._actions:
                raise ValueError(f"it asks for {operation.name}, which plain data does not need")
            self._actions[operation.name](argument)
        raise ValueError("it has no end")

    def _last(self, number: int) -> list[Any]:
        if number > len(self._stack):
            raise IndexError
        taken = self._stack[len(self._stack) - number :]
        del self._stack[len(self._stack) - number :]
        return taken

    def _since_mark(self) -> list[Any]:
        return self._last(len(self._stack) - self._marks.pop())

    def _remember(self, place: int) -> None:
        self._memory[place] = self._stack[-1]

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise ValueError("it is damaged: there is no list to append to")  # noqa: TRY004
        self._stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        if not isinstance(self._stack[-1], dict) or not all(isinstance(key, str | bytes) for key in keys):
            raise ValueError("it is damaged: there is no dict with texts as keys")
        self._stack[-1].update(zip(keys, values, strict=True))

    def _name(self, name: str) -> None:
        if name not in _NAMES:
            raise ValueError(f"it asks for {name[:_LONGEST].replace(' ', '.', 1)!r}, which plain data does not need")
        self._stack.append(_Name(_NAMES[name]))

    def _call(self, called: object, arguments: object) -> None:
        name = called.name if isinstance(called, _Name) else None
        if name == _RECONSTRUCT:
            self._stack.append(_Array())
        elif name == _DTYPE and isinstance(arguments, tuple) and arguments[:1] in (("u1",), (b"u1",)):
            self._stack.append(_Bytes())
        else:
            raise ValueError(_NO_BYTES)

    def _build(self, state: object) -> None:
        built = self._stack[-1]
        # The state of a uint8 dtype is ignored: it has no byte order and no fields.
        if isinstance(built, _Array):
            built.value = _array(state)
        elif not isinstance(built, _Bytes):
            raise ValueError(_NO_BYTES)  # noqa: TRY004  (the content is wrong, not a type of ours)


def _joined(module: object, name: object) -> str:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("it is damaged: a name is no text")  # noqa: TRY004
    return f"{module} {name}"


def _array(state: object) -> npt.NDArray[np.uint8]:
    """Build an array from NumPy's pickled state: version, shape, dtype, whether in Fortran order, content."""
    match state:
        case (int(), tuple() as shape, _Bytes(), int() as by_columns, bytes() as data):
            pass
        case _:
            raise ValueError(_NO_BYTES)
    if not all(isinstance(side, int) and side >= 0 for side in shape) or math.prod(shape) != len(data):
        raise ValueError("it is damaged: an array has not as many bytes as its shape says")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if by_columns else "C")
