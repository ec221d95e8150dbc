"""Pictures into a folder for each label: first a plan, then, if it is meant so, copies or renamings.

Nothing that is there is overwritten, and nothing is lost: a picture leaves its place once it stands complete in the
other. Knows nothing of models and probabilities.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clipsearch.errors import InputError
from clipsearch.output.paths import printable, shown
from clipsearch.output.placing import copy_whole, free_names, is_same
from clipsearch.output.reports import plural

_UNSAFE = re.compile(r'[<>:"/\\|?*]')
"""What parts names, here or on Windows."""
_LONGEST = 255
"""Bytes of a name, in all common file systems."""


class Step(NamedTuple):
    """A picture and where it goes (both absolute)."""

    source: bytes
    target: bytes
    there: bool
    """It need not be brought: it is there itself or, when copying, as a file with the same content."""


def folder_names(labels: Sequence[str]) -> list[str]:
    """A name of a folder for each label: characters that parts of paths must not have are underscores.

    Raises:
        InputError: two labels would share a folder (also where case does not count), or a name would be too long.
    """
    names = []
    seen: dict[str, str] = {}
    for label in labels:
        text = "".join(c if c.isprintable() else "_" for c in _UNSAFE.sub("_", label)).strip().rstrip(".")
        name = "_" + text.lstrip(".") if text.startswith(".") or not text else text
        if name.casefold() in seen:
            other = seen[name.casefold()]
            raise InputError(f"The labels {other!r} and {label!r} would share the folder {name}. Rename one of them.")
        seen[name.casefold()] = label
        if len(name.encode()) > _LONGEST:
            raise InputError(f"The label {label!r} is too long for the name of a folder. Give it a short name.")
        names.append(name)
    return names


def plan(pictures: Iterable[tuple[bytes, str]], folder: Path, *, move: bool) -> list[Step]:
    """Where each picture (absolute path, name of its folder) goes within `folder`; touches nothing.

    They keep their names; where one is taken, by another of them or by what is there, the next number is put behind it.

    Raises:
        InputError: a picture is gone, or something that is no folder is in the way.
    """
    top = os.fsencode(os.path.abspath(folder))
    steps: list[Step] = []
    coming: dict[bytes, bytes] = {}
    """Where something will be, and what."""
    leaving: set[bytes] = set()
    for source, name in pictures:
        inner = os.path.join(top, os.fsencode(name))
        for place in (top, inner):
            if os.path.lexists(place) and not os.path.isdir(place):
                raise InputError(f"{printable(shown(place))} is no folder. Name another one.")
        if not os.path.exists(source):
            raise InputError(f"{printable(shown(source))} is gone. To bring the index up to date: clipsearch index")
        targets = (os.path.join(inner, candidate) for candidate in free_names(os.path.basename(source)))
        tried = (_step(source, target, coming, leaving, move=move) for target in targets)
        step = next(step for step in tried if step is not None)  # names never end
        steps.append(step)
        coming[step.target] = source
        if move and not step.there:
            leaving.add(source)
    return steps


def carry_out(steps: Iterable[Step], *, move: bool) -> Iterator[Step]:
    """Copy or move, and give back each step once it is done. What was done stays, whatever happens then.

    Raises:
        InputError: a folder cannot be written, a picture cannot be read, or a name was taken since it was planned.
    """
    for step in steps:
        if not step.there:
            try:
                os.makedirs(os.path.dirname(step.target), exist_ok=True)
                done = _moved(step.source, step.target) if move else copy_whole(step.source, step.target)
            except OSError as error:
                raise InputError(_cannot(step, str(error.strerror), move=move)) from error
            if not done:
                raise InputError(_cannot(step, "it was made meanwhile, and stays as it is", move=move))
        yield step


def in_words(steps: Sequence[Step], folder: Path, *, move: bool, dry_run: bool) -> str:
    """What was done, or would be."""
    done = sum(not step.there for step in steps)
    there = len(steps) - done
    verb = f"Would {'move' if move else 'copy'}" if dry_run else "Moved" if move else "Copied"
    rest = f"; {there} {'is' if there == 1 else 'are'} there already" if there else ""
    return f"{verb} {plural(done, 'image')} to folders in {printable(os.fsencode(folder))}{rest}."


def _step(source: bytes, target: bytes, coming: dict[bytes, bytes], leaving: set[bytes], *, move: bool) -> Step | None:
    """None if the name is taken."""
    if target == source:
        return Step(source, target, there=True)
    if target in coming:
        same = not move and is_same(source, coming[target], link=False)
    elif os.path.lexists(target) and target not in leaving:
        same = not move and is_same(source, target, link=False)
    else:
        return Step(source, target, there=False)
    return Step(source, target, there=True) if same else None


def _moved(source: bytes, target: bytes) -> bool:
    """False if the name was taken meanwhile."""
    if os.path.islink(source):  # it may be relative, and would lead nowhere from another folder
        try:
            os.symlink(os.path.realpath(source), target)
        except FileExistsError:
            return False
    else:
        try:
            os.link(source, target)  # unlike a renaming, it never replaces anything
        except FileExistsError:
            return False
        except OSError:  # another file system, or one without hard links
            if not copy_whole(source, target):
                return False
    try:
        os.unlink(source)
    except OSError:  # its folder may not be changed: then it is not moved at all
        os.unlink(target)
        raise
    return True


def _cannot(step: Step, reason: str, *, move: bool) -> str:
    source, target = printable(shown(step.source)), printable(shown(step.target))
    return f"Cannot {'move' if move else 'copy'} {source} to {target}: {reason}. What was done before stays."
