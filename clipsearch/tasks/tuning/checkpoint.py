"""What a training has done so far, in a folder beside the model to come, so that it goes on after any end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from clipsearch.errors import ClipsearchError, InputError
from clipsearch.system.flushing import replace_flushed

SECONDS = 60.0
"""The longest time of work that is lost if the process is killed."""
_FILE, _LOCK = "checkpoint.safetensors", "lock"
_FACTS = "facts"
"""The entry of the file's metadata with what is no tensor."""


class State(NamedTuple):
    """What a training has done so far."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]
    """Values that JSON has."""


class Checkpoint:
    """The checkpoint in a folder."""

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        """Use a folder.

        Args:
            folder: an existing folder.
            run: what the weights depend on, under names for people; values that JSON has.
        """
        self._file, self._run = folder / _FILE, dict(run)

    def load(self) -> State | None:
        """Read the checkpoint; None if there is none.

        Raises:
            InputError: it is of another run, or cannot be read.
        """
        if not self._file.exists():
            return None
        try:
            with safe_open(self._file, "pt") as file:
                facts = json.loads(file.metadata()[_FACTS])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dictionary)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise InputError(
                f"The checkpoint in {self._file.parent} cannot be read: {error}.",
                hint="begin-training-again",
                folder=self._file.parent,
            ) from error
        was = facts.pop("run")
        if others := [name for name in self._run if self._run[name] != was.get(name)]:
            raise InputError(
                f"{self._file.parent} has the checkpoint of a run with other {' and '.join(others)}.",
                hint="other-training",
                folder=self._file.parent,
            )
        return State(tensors, facts)

    def save(self, state: State) -> None:
        """Write a checkpoint in place of the last one.

        Raises:
            OSError: the folder cannot be written.
        """
        facts = json.dumps({**state.facts, "run": self._run})
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
        replace_flushed(self._file, save(tensors, {_FACTS: facts}))


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """Make or reuse the folder for what is needed until the model is written to `out`.

    It is removed at the end, and after an error unless it has a checkpoint. What was stopped finds it again.

    Raises:
        InputError: the folder cannot be made, or another process uses it.
    """
    from filelock import FileLock, Timeout

    folder = out.absolute().with_name(f".{out.name}.tuning")
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"Another clipsearch is making {out} already.", hint="other-folder") from error
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}.") from error
    is_over = False
    try:
        yield folder
        is_over = True
    except ClipsearchError:
        is_over = not (folder / _FILE).exists()
        raise
    finally:
        lock.release()
        if is_over:
            shutil.rmtree(folder, ignore_errors=True)
