"""Names of models: what users may type, and which model it means. Reads no file of a model."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from clipsearch.errors import ModelError
from clipsearch.models.disk import hub
from clipsearch.models.disk.catalog import BUNDLED, ENTRIES, OPEN_CLIP, ORIGINALS, find

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class HubName:
    """A model on the hub, parsed from a name."""

    name: str
    """Canonical name without the revision."""
    repository: str
    revision: str | None
    """A branch, a tag or a commit hash, if the name has one."""

    @property
    def whole(self) -> str:
        """Canonical name with the revision."""
        return f"{self.name}@{self.revision}" if self.revision else self.name


def canonical(name: str) -> str:
    """Return the canonical name of a model: its short name, the absolute path of its folder, or its repository.

    A revision (NAME@REVISION) is kept.
    """
    if name == BUNDLED:
        return name
    if (folder := folder_of(name)) is not None:
        return str(folder.resolve())
    on_hub = hub_name(name)
    return on_hub.whole if on_hub else name


def without_revision(name: str) -> str:
    """Return a canonical name without its @REVISION."""
    on_hub = None if folder_of(name) else hub_name(name)
    return on_hub.name if on_hub else name


def is_pinned(name: str, known: str, commit: str) -> bool:
    """Return whether the canonical `name` pins `commit` of the model with the canonical name `known`."""
    on_hub = hub_name(name)
    if on_hub is None or on_hub.repository != repository_of(known):
        return False
    return bool(on_hub.revision and hub.is_commit(on_hub.revision) and commit.startswith(on_hub.revision))


def repository_of(name: str) -> str | None:
    """Return the repository on the hub that a name means; None for folders and the bundled model."""
    on_hub = None if folder_of(name) else hub_name(name)
    return on_hub.repository if on_hub else None


def folder_of(name: str) -> Path | None:
    """Return the folder that a name means; None for short names and for repositories of the catalogue."""
    folder = Path(os.path.expanduser(name))
    return folder if find(name) is None and os.path.isdir(folder) else None


def hub_name(name: str) -> HubName | None:
    """Parse a name of a model on the hub; return None if it cannot be one."""
    base, _, revision = name.removeprefix("hf-hub:").partition("@")
    if "@" in name and not hub.is_revision(revision):
        return None
    repository = _OPEN_CLIP.get(_folded(base), base)
    if entry := find(repository):
        return HubName(entry.name, entry.repository, revision or None) if entry.repository else None
    fits = _REPOSITORY.fullmatch(repository) and ".." not in repository and not _original(base)
    return HubName(repository, repository, revision or None) if fits else None


def _folded(name: str) -> str:
    """Fold a name of open_clip, which accepts its names in any case and with - or _."""
    return name.lower().replace("_", "-")


_OPEN_CLIP = {_folded(name): repository for name, repository in OPEN_CLIP.items()}


def _original(name: str) -> str | None:
    """Return the file name of OpenAI's archive that a name (ViT-B-32.pt or ViT-B/32) means; None if it means none."""
    wanted = {os.path.basename(name).lower(), f"{name.lower().replace('/', '-').replace('@', '-')}.pt"}
    return next((file for file in ORIGINALS if file.lower() in wanted), None)


def refuse_file(name: str) -> None:
    """Refuse a name that is a file or one of OpenAI's archives.

    Raises:
        ModelError: it is one.
    """
    path = Path(os.path.expanduser(name))
    original = _original(name)
    if original and (original.lower() == path.name.lower() or not os.path.exists(path)):
        short = ORIGINALS[original]
        way = f"the same weights are the model {short}" if short else "its model is none that clipsearch reads"
        raise ModelError(
            f"{name} is an archive of OpenAI's: a TorchScript pickle, which may run any code and is not loaded; {way}."
        )
    if os.path.isfile(path):
        from clipsearch.models.disk.integrity import is_torchscript

        if is_torchscript(path):
            raise ModelError(
                f"{name} is a TorchScript pickle, which may run any code and is not loaded. OpenAI's own weights are "
                f"there without, as the models {', '.join(short for short in ORIGINALS.values() if short)}."
            )
        raise ModelError(f"{name} is a file. Name the folder that holds config.json and the weights.")


def unknown(name: str) -> str:
    """Return the message for an unknown name."""
    names = [entry.name for entry in ENTRIES]
    base, _, revision = name.partition("@")
    if revision and (base == BUNDLED or folder_of(base)):
        return f"{name!r}: only models on the hub have revisions. Leave it out: {base}"
    close = difflib.get_close_matches(base, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"Unknown model {name!r}.{hint} Known names: {', '.join(names)}. "
        "A folder (./my-clip) or a repository on the Hugging Face hub (owner/name) works too."
    )
