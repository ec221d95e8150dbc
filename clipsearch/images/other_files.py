"""Files and folders without an image extension: what their names say, and how those left out are counted and listed.

Knows nothing of the disk, nor of the extensions of images.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping

from clipsearch.images.codecs.optional_packages import install_command, needed_extra
from clipsearch.system.members import ENDINGS

NO_ENDING = ""
"""Kind of the files without an extension."""
IN_AN_ARCHIVE = " in an archive"
IN_A_STORE = " in a store"
"""What follows the extension in the kind of archives that lie in another one."""


class Sort(enum.Enum):
    """What the name says about a file without an image extension."""

    UNKNOWN = enum.auto()
    """The name says nothing; the first bytes must be read."""
    BACKUP = enum.auto()
    """An earlier, partial or spare copy of a file that may be an image."""
    OTHER = enum.auto()
    """Something else to look at, or that may contain images; it is counted."""
    BESIDE = enum.auto()
    """Text, table, settings or data of a program; it is not counted."""


def _endings(text: str) -> frozenset[bytes]:
    return frozenset(os.fsencode(f".{word}") for word in text.split())


_OTHER = _endings(
    "3g2 3gp avi flv insv lrv m2ts m4v mkv mov mp4 mpeg mpg mts ogv vob webm wmv "  # films
    "ai cdr emf eps ps svg svgz wmf "  # drawings
    "afphoto blend clip exr fit fits hdr jxr kra ora psb wdp xcf dcm nii "  # images that are not read
    "djvu doc docx epub indd key odg odp ods odt pages pdf ppt pptx pub vsd xls xlsx "  # documents
    "7z bz2 cbr cbz dmg gz iso rar tar tgz xz zip zst tfrecord "  # archives
    "3ds fbx glb gltf stl"  # solids
)
_BESIDE = _endings(
    "aae arp cof cop cos cot dop lrcat lrprev nksc on1 pp3 thm xmp "  # of photo programs
    "bib csv json jsonl log md ndjson nfo rst rtf srt sub tex tsv txt vtt xml yaml yml "  # texts, tables, captions
    "cfg conf desktop inf ini lnk lock properties toml url webloc "  # settings and links
    "geojson gpx kml kmz "  # places
    "cue m3u m3u8 md5 par2 sfv sha1 sha256 sha512 torrent "  # lists and checksums
    "aac aif aiff ape flac m4a mid midi mp3 ogg opus wav wma "  # sound
    "arrow ckpt db db3 feather h5 hdf5 mat npy npz onnx parquet pickle pkl pt pth safetensors sqlite sqlite3 "  # data
    "bash bat c cc class cmake cpp cs css go h hpp htm html ipynb java js jsx kt lua m php pl ps1 py pyc pyi r rb rs "
    "sass scala scss sh sql swift ts tsx vue wasm zsh "  # programs
    "a dll dylib exe jar lib o obj pyd so "
    "otf ttc ttf woff woff2"  # fonts
)
_NAMES_BESIDE = frozenset({b".clipsearchignore", b".ds_store", b".gitignore", b".localized", b".nomedia", b"icon\r"})

_BACKUP = _endings("backup bak crdownload download filepart old opdownload orig part partial sav save swo swp temp tmp")
_MARKS = (b"~", b"_original")
"""Suffixes that editors and exiftool append to the whole name of a backup."""

_ENDING = re.compile(rb"(?<=[^.])\.[a-z0-9_+-]{1,12}\Z")

_OF_SYSTEMS = (
    "@eaDir/",  # Synology's thumbnails
    "#recycle/",  # its bin
    "#snapshot/",
    "@Recycle/",  # QNAP's
    ".@__thumb/",
    "@Recently-Snapshot/",
    ".thumbnails/",  # Android, older desktops
    "$RECYCLE.BIN/",  # Windows
    "RECYCLER/",
    "System Volume Information/",
    ".Trash/",  # Linux and macOS
    ".Trashes/",
    ".Trash-*/",
    "*.lrdata/",  # previews of Lightroom
    "*.photoslibrary/resources/derivatives/",  # of Apple Photos
    "*.photoslibrary/Thumbnails/",  # of its older versions, of iPhoto and Aperture
    "*.photolibrary/Thumbnails/",
    "*.aplibrary/Thumbnails/",
    "*.aplibrary/Previews/",
)
"""Folders in which operating systems and programs keep copies, previews and deleted images."""


def _compiled(kind: str) -> re.Pattern[bytes]:
    """Pattern for whole paths, in any case."""
    regex = "/" + re.escape(kind.rstrip("/")).replace(r"\*", "[^/]*") + r"\Z"
    return re.compile(os.fsencode(regex), re.IGNORECASE)


_SYSTEM_FOLDERS = {kind: _compiled(kind) for kind in _OF_SYSTEMS}
_LAST_WORDS = re.compile(
    b"|".join(os.fsencode(re.escape(kind.rstrip("/").rpartition("/")[2]).replace(r"\*", ".*")) for kind in _OF_SYSTEMS),
    re.IGNORECASE,
)
"""Names of such folders without their parents: a fast check, since few folders match."""


def sort_of(name: bytes) -> tuple[Sort, str]:
    """Classify a file by its name: its extension in lower case, or `NO_ENDING`; of backups `*~` or `.bak`."""
    lower = name.lower()
    ending = _ending(lower)
    mark, was = _backup(lower, ending)
    if mark:  # what it is a backup of tells whether it may be an image
        ending = _ending(was)
    if ending in _BESIDE or lower in _NAMES_BESIDE:
        return Sort.BESIDE, ending.decode("ascii")
    if ending in _OTHER:
        return Sort.OTHER, ending.decode("ascii")
    return (Sort.BACKUP, mark.decode("ascii")) if mark else (Sort.UNKNOWN, ending.decode("ascii"))


def _ending(lower: bytes) -> bytes:
    """Extension of a name with its dot, if it is short and of letters and digits; else empty."""
    found = _ENDING.search(lower)
    return found[0] if found else b""


def _backup(lower: bytes, ending: bytes) -> tuple[bytes, bytes]:
    """Suffix that marks a name as that of a backup, and the name without it; an empty suffix if there is none."""
    if ending in _BACKUP:
        return ending, lower.removesuffix(ending)
    for mark in _MARKS:
        was = lower.removesuffix(mark)
        if was != lower and (mark == b"~" or _ending(was)):
            return b"*" + mark, was
    return b"", lower


def system_folder(path: bytes) -> str | None:
    """Return which of the `_OF_SYSTEMS` a folder (absolute path) is, or None."""
    if not _LAST_WORDS.fullmatch(os.path.basename(path)):
        return None
    return next((kind for kind, pattern in _SYSTEM_FOLDERS.items() if pattern.search(path)), None)


class PassedOver:
    """Counts of the files and folders that were left out, by kind."""

    _MOST_KINDS = 200
    """Further kinds count as files without an extension: files of a cache may all have different ones."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, kind: str) -> None:
        """Count one file or folder."""
        if kind not in self.counts and len(self.counts) >= self._MOST_KINDS:
            kind = NO_ENDING
        self.counts[kind] = self.counts.get(kind, 0) + 1


def total(parts: list[Mapping[str, int]]) -> dict[str, int]:
    """Sum of the counts in `parts`, the greatest first."""
    kinds = {kind for part in parts for kind in part}
    sums = {kind: sum(part.get(kind, 0) for part in parts) for kind in kinds}
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def install_for(kind: str) -> str | None:
    """What to type so that a kind can be read; None if nothing helps."""
    extra = needed_extra(kind)
    return install_command(extra) if extra else None


def rule_for(kind: str) -> str | None:
    """Which of the `Rules` of a search takes a kind in; None if none does."""
    if kind.endswith("/"):
        return "include_system"
    if kind in ENDINGS:
        return "archives"
    return "include_backups" if kind.startswith("*") or os.fsencode(kind) in _BACKUP else None


_NAMED_AT_MOST = 6


def listed(counts: Mapping[str, int], help_for: Callable[[str], str | None] = install_for) -> str:
    """`12 .mp4, 3 .jxl (pip install 'clipsearch[jxl]'), 1 .svg and 9 others of 4 kinds`; what helps is always named."""
    helps = {kind: help_for(kind) for kind in counts}
    ordered = sorted(counts, key=lambda kind: (helps[kind] is None, -counts[kind], kind))
    named = sorted(ordered[:_NAMED_AT_MOST], key=lambda kind: (-counts[kind], kind))
    text = ", ".join(
        f"{counts[kind]:,} {kind or 'without an ending'}" + (f" ({helps[kind]})" if helps[kind] else "")
        for kind in named
    )
    rest = ordered[_NAMED_AT_MOST:]
    if rest:
        files = sum(counts[kind] for kind in rest)
        text += f" and {files:,} other{'s' * (files > 1)} of {len(rest)} kind{'s' * (len(rest) > 1)}"
    return text
