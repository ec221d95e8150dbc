"""Sorting of images into a folder for each label: a plan first, then copying or moving.

No file is overwritten or lost. This module decides where files go; `system.copying` copies and moves them. Knows
nothing of models and probabilities.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clipsearch.errors import FileStaysError, InputError
from clipsearch.images.named_files import MISSING, named_files
from clipsearch.output.copies import copy_image, is_same
from clipsearch.output.paths import printable, shown
from clipsearch.system.addresses import is_address
from clipsearch.system.copying import move as move_file
from clipsearch.system.copying import move_link, relink
from clipsearch.system.counting import plural
from clipsearch.system.members import elsewhere
from clipsearch.system.naming import free_names

_UNSAFE = re.compile(r'[<>:"/\\|?*]')
"""Characters that are not allowed in file names, here or on Windows."""
_LONGEST = 255
"""Longest file name that all common file systems allow, in bytes."""

_Name = tuple[tuple[int, int] | bytes, bytes]
"""A folder (device and inode or, if it does not exist yet, its real path), and a file name in it."""


class Step(NamedTuple):
    """One planned copy or move."""

    source: bytes
    """Absolute path of the image."""
    target: bytes
    """Absolute path that it gets."""
    there: bool
    """Nothing is to be done: the image is there already or, when copying, a file with the same content is."""


def folder_names(labels: Sequence[str]) -> list[str]:
    """Return a folder name for each label, with underscores for characters that file names must not contain.

    Raises:
        InputError: two labels would get the same name (ignoring case), or a name would be too long.
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


def plan(images: Iterable[tuple[bytes, str]], folder: Path, *, move: bool) -> list[Step]:
    """Plan where each image (absolute path, name of its folder) goes within `folder`, without changing anything.

    Files keep their names; if a name is taken, it gets a number.

    Raises:
        InputError: an image is gone or cannot be had now, or a file is in the place of a folder.
    """
    top = os.fsencode(os.path.abspath(folder))
    names = _Names(move=move)
    steps: list[Step] = []
    images = list(images)
    sources = [source for source, _ in images]
    if move and (source := next(filter(elsewhere, sources), None)):
        raise InputError(
            f"{printable(shown(source))} lies {elsewhere(source)}, and nothing is ever changed there.", hint="copy-into"
        )
    for (source, name), file in zip(images, named_files(sources), strict=True):
        inner = os.path.join(top, os.fsencode(name))
        for place in (top, inner):
            if os.path.lexists(place) and not os.path.isdir(place):
                raise InputError(f"{printable(shown(place))} is no folder. Name another one.")
        if file.problem is not None and (file.problem.startswith(MISSING) or not is_address(source)):
            raise InputError(f"{printable(shown(source))} is gone.", hint="refresh")
        if file.problem is not None:
            raise InputError(f"{printable(shown(source))}: {file.problem}.")
        targets = (os.path.join(inner, candidate) for candidate in free_names(os.path.basename(source)))
        steps.append(next(step for step in (names.step(source, target) for target in targets) if step is not None))
    return steps


def carry_out(steps: Sequence[Step], *, move: bool) -> Iterator[Step]:
    """Copy or move the images, and yield each step when it is done. After an error, earlier steps stay done.

    Symbolic links among the images are updated if the image that they lead to is moved.

    Raises:
        InputError: a folder cannot be written, an image cannot be read, another program changes it, or a name was
            taken since the plan was made.
    """
    links = _Links(steps) if move else None
    for step in steps:
        if not step.there:
            try:
                os.makedirs(os.path.dirname(step.target), exist_ok=True)
                done = links.moved(step.source, step.target) if links else copy_image(step.source, step.target)
            except OSError as error:
                raise InputError(_cannot(step, str(error.strerror), move=move)) from error
            except FileStaysError as error:
                raise InputError(_cannot(step, str(error), move=move)) from error
            if not done:
                raise InputError(_cannot(step, "it was made meanwhile, and stays as it is", move=move))
        yield step


def in_words(steps: Sequence[Step], folder: Path, *, move: bool, dry_run: bool) -> str:
    """Return a sentence about what was done, or with `dry_run` would be."""
    done = sum(not step.there for step in steps)
    there = len(steps) - done
    verb = f"Would {'move' if move else 'copy'}" if dry_run else "Moved" if move else "Copied"
    place = printable(shown(os.fsencode(os.path.abspath(folder)))) or "."  # `..` alone would read as an ellipsis
    rest = f"; {there} {'is' if there == 1 else 'are'} there already" if there else ""
    return f"{verb} {plural(done, 'image')} to folders in {place}{rest}."


class _Names:
    """Names that are taken now and after the steps planned so far.

    A name is identified by the device and inode of its folder, which may be reached through a link or a second mount.
    """

    def __init__(self, *, move: bool) -> None:
        self._move = move
        self._coming: dict[_Name, bytes] = {}
        """Name that will be taken -> path of the image that gets it."""
        self._leaving: set[_Name] = set()
        self._folders: dict[bytes, tuple[int, int] | bytes] = {}

    def step(self, source: bytes, target: bytes) -> Step | None:
        """Return the step that brings an image to `target`; None if that name is taken."""
        old, new = self._name(source), self._name(target)
        if old == new:
            step = Step(source, target, there=True)
        elif new in self._coming:
            if self._move or not is_same(source, self._coming[new], link=False):
                return None
            step = Step(source, target, there=True)
        elif os.path.lexists(target) and new not in self._leaving:
            if self._move or not is_same(source, target, link=False):
                return None
            step = Step(source, target, there=True)
        else:
            step = Step(source, target, there=False)
        self._coming[new] = source
        if self._move and not step.there:
            self._leaving.add(old)
        return step

    def _name(self, path: bytes) -> _Name:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            try:
                status = os.stat(folder)
                self._folders[folder] = (status.st_dev, status.st_ino)
            except OSError:  # it does not exist yet
                self._folders[folder] = os.path.realpath(folder)
        return self._folders[folder], name


class _Links:
    """The symbolic links among images that are moved, and the files that they lead to, at their current paths."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._files: dict[bytes, bytes] = {}
        """Current path of each link -> current path of its file."""
        for step in steps:
            if os.path.islink(step.source):
                self._files[step.source] = os.path.realpath(step.source)
        self._links: dict[bytes, set[bytes]] = {}
        """Current path of each file -> current paths of the links to it."""
        for link, file in self._files.items():
            self._links.setdefault(file, set()).add(link)

    def moved(self, source: bytes, target: bytes) -> bool:
        """Move an image; return False if the name is taken."""
        if source in self._files:
            return self._moved_link(source, target, self._files[source])
        old = os.path.realpath(source)
        if not move_file(source, target):
            return False
        if links := self._links.pop(old, set()):
            new = os.path.realpath(target)
            self._links[new] = links
            self._files.update(dict.fromkeys(links, new))
            self._mend(links)
        return True

    def _moved_link(self, source: bytes, target: bytes, file: bytes) -> bool:
        if not move_link(source, target, file):  # a relative link would be broken in another folder
            return False
        del self._files[source]
        self._files[target] = file
        links = self._links[file]
        links.remove(source)
        links.add(target)
        self._mend(links)  # another link may lead to this one
        return True

    def _mend(self, links: set[bytes]) -> None:
        for link in sorted(links):
            if os.path.realpath(link) != self._files[link]:
                _relink(link, self._files[link])


def _relink(link: bytes, target: bytes) -> None:
    try:
        relink(link, target)
    except OSError as error:
        raise InputError(
            f"{printable(shown(target))} was moved there, but the link {printable(shown(link))} still leads to where "
            f"it was: {error.strerror}."
        ) from error


def _cannot(step: Step, reason: str, *, move: bool) -> str:
    source, target = printable(shown(step.source)), printable(shown(step.target))
    return f"Cannot {'move' if move else 'copy'} {source} to {target}: {reason}. What was done before stays."
