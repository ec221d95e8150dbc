"""Lists the members of a zip archive, with the standard library's `zipfile`, and reads one of them.

A member is read without `zipfile`, which would read the whole list again for each, and share one open file among
threads. Only what nearly all zip files use is read: stored or deflated members that are not encrypted.
"""

from __future__ import annotations

import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import BinaryIO

from clipsearch.images.archive_members import (
    LINK,
    MOST_MEMBERS,
    TRUNCATED,
    Bounded,
    Contents,
    Member,
    TooLongError,
    nanoseconds,
    tidy_name,
)
from clipsearch.images.files import MemberError

_LONGEST_LIST = 128 << 20
"""Bytes of the longest list of members."""
_HEADER = struct.Struct("<4s22xHH")
_SIGNATURE = b"PK\3\4"
_ENCRYPTED, _UTF_8 = 0x2041, 0x800
"""Flags of a member: encrypted, in any of three ways; and that its name is UTF-8."""
_UNIX = 3
_TIMES, _UNICODE_NAME = 0x5455, 0x7075
"""Numbers of the extra fields with a time of change in seconds since 1970, and with a name in UTF-8."""
_BOMB_SIZE, _BOMB_FACTOR = 100_000_000, 100
"""A member of more bytes that is compressed to less than this fraction is no picture: even one of a single colour is
not that large. Real photographs are hardly compressed at all."""
_HEAD_PACKED = 16 << 10
"""Compressed bytes that are read for the first bytes of a member."""
_BROKEN = "broken in the archive"


def zip_contents(file: BinaryIO, size: int) -> Contents:
    """List the members of a zip archive of `size` bytes.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(Bounded(file, _LONGEST_LIST)) as archive:  # all that is used of a file
            infos = archive.infolist()
            end = archive.start_dir
    except TooLongError:
        return Contents({}, "its list of members is longer than any real one")
    except UnicodeDecodeError:
        return Contents({}, "a name in it is not in the encoding that it says")
    except zipfile.BadZipFile as error:
        return Contents({}, f"it is no zip archive, or its end is missing ({error})")
    except (ValueError, NotImplementedError, OverflowError, EOFError, struct.error) as error:
        return Contents({}, f"it is broken ({error})")
    if len(infos) > MOST_MEMBERS:
        return Contents({}, f"it has more than {MOST_MEMBERS:,} members")
    overlapping = _overlapping(infos)
    members: dict[bytes, Member] = {}
    for number, info in enumerate(infos):
        raw = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF_8 else "cp437")
        extra = dict(_extra_fields(info.extra))
        name, problem = tidy_name(_unicode_name(raw, extra) or raw)
        if raw.endswith(b"/"):
            continue
        problem = problem or _problem(info, min(end, size), overlaps=number in overlapping)
        members[name] = Member(
            info.header_offset,
            min(info.file_size, size) if problem else info.file_size,  # any number may be stored
            _mtime_ns(info, extra),
            info.compress_size,
            deflated=info.compress_type == zipfile.ZIP_DEFLATED,
            crc=info.CRC,
            problem=problem,
        )
    return Contents(members)


def read_member(file: BinaryIO, member: Member) -> bytes:
    """Read a member of an opened zip archive; its problems and size have been checked.

    Raises:
        MemberError: it is broken.
        OSError: the archive cannot be read.
    """
    packed = _packed(file, member, member.packed)
    if len(packed) < member.packed:
        raise MemberError(TRUNCATED)
    content = packed
    if member.deflated:
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflating.decompress(packed, member.size + 1)  # not more than that, whatever is in it
        except zlib.error as error:
            raise MemberError(f"{_BROKEN}: {error}") from error
    if len(content) != member.size:
        raise MemberError(f"{_BROKEN}: it does not have the size that its header says")
    if zlib.crc32(content) != member.crc:
        raise MemberError(f"{_BROKEN}: its checksum is wrong")
    return content


def first_bytes(file: BinaryIO, member: Member, count: int) -> bytes:
    """Read the first `count` bytes of a member, or all that it has.

    Raises:
        OSError: the archive cannot be read, or the member is broken.
    """
    try:
        packed = _packed(file, member, min(member.packed, _HEAD_PACKED))
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, count) if member.deflated else packed[:count]
    except (MemberError, zlib.error) as error:
        raise OSError(str(error)) from error


def _packed(file: BinaryIO, member: Member, count: int) -> bytes:
    """Read the first `count` bytes of a member as they stand in the archive, behind its own header."""
    file.seek(member.at)
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise MemberError(TRUNCATED)
    signature, name, extra = _HEADER.unpack(head)
    if signature != _SIGNATURE:
        raise MemberError(f"{_BROKEN}: it has no header")
    file.seek(name + extra, 1)
    return file.read(count)


def _problem(info: zipfile.ZipInfo, end: int, *, overlaps: bool) -> str | None:
    """Return why a member cannot be read; None if it can be. `end` is the first byte after all members."""
    stored, packed, size = info.compress_type == zipfile.ZIP_STORED, info.compress_size, info.file_size
    method = zipfile.compressor_names.get(info.compress_type, f"method {info.compress_type}")  # type: ignore[attr-defined]
    problems = {
        "encrypted": info.flag_bits & _ENCRYPTED,
        LINK: info.create_system == _UNIX and stat.S_ISLNK(info.external_attr >> 16),
        f"compressed in a way that is not read ({method})": not stored and info.compress_type != zipfile.ZIP_DEFLATED,
        "it overlaps another member, as in a zip bomb": overlaps,
        TRUNCATED: not 0 <= info.header_offset <= end - _HEADER.size - packed,
        f"{_BROKEN}: it has two sizes": stored and packed != size,
        f"{size / 1e6:,.0f} MB out of {packed / 1e6:,.1f}, as in a zip bomb": (
            size > _BOMB_SIZE and size > _BOMB_FACTOR * packed
        ),
    }
    return next((problem for problem, holds in problems.items() if holds), None)


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """Return the numbers of members whose bytes are those of others as well."""
    order = sorted(range(len(infos)), key=lambda number: infos[number].header_offset)
    found = set()
    for one, following in pairwise(order):
        info = infos[one]
        end = info.header_offset + _HEADER.size + len(info.orig_filename) + info.compress_size
        if end > infos[following].header_offset:
            found.add(one)
    return found


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each extra field."""
    while len(extra) >= 4:  # noqa: PLR2004  (number and length)
        number, length = struct.unpack_from("<HH", extra)
        yield number, extra[4 : 4 + length]
        extra = extra[4 + length :]


def _unicode_name(raw: bytes, extra: dict[int, bytes]) -> bytes | None:
    """Return the name in UTF-8 that some programs add to one in another encoding, if it belongs to that."""
    field = extra.get(_UNICODE_NAME, b"")
    fits = len(field) > 5 and field[1:5] == zlib.crc32(raw).to_bytes(4, "little")  # noqa: PLR2004  (version, CRC)
    return field[5:] if fits else None


def _mtime_ns(info: zipfile.ZipInfo, extra: dict[int, bytes]) -> int:
    """Return when a member was last changed; without a better time by its local time, whose zone is not stored."""
    field = extra.get(_TIMES, b"")
    if len(field) >= 5 and field[0] & 1:  # noqa: PLR2004  (flags, time)
        return nanoseconds(struct.unpack_from("<i", field, 1)[0])
    try:
        return nanoseconds(time.mktime(datetime(*info.date_time).timetuple()))  # noqa: DTZ001  (local time)
    except (ValueError, OverflowError):
        return 0
