"""Archives for tests, good ones and such as nobody should make."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def picture(colour: str, kind: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture with a square in the middle, so that colours and sizes make a difference."""
    image = Image.new("RGB", size, colour)
    image.paste("white", (size[0] // 3, size[1] // 3, size[0] // 2, size[1] // 2))
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def named(name: str | bytes, **values: object) -> tarfile.TarInfo:
    """A header of a tar archive with the bytes of `name` as they are."""
    info = tarfile.TarInfo(os.fsdecode(name))
    for attribute, value in values.items():
        setattr(info, attribute, value)
    return info


def tar(path: Path, members: Mapping[str, bytes] | Mapping[bytes, bytes], *, mtime: float = 1_000_000_000) -> Path:
    """A tar archive with these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as archive:
        for name, content in members.items():
            archive.addfile(named(name, size=len(content), mtime=mtime), io.BytesIO(content))
    return path


def zipped(path: Path, members: Mapping[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip archive with these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 2, 3, 4, 6)), content, compression)
    return path
