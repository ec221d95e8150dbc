"""Explains how a model tokenises a text: pieces, ids, and where a long text is truncated.

The module knows nothing of where a tokenizer comes from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from clipsearch.models.in_numpy.text_tower import Tokens
from clipsearch.system.unicode import check_utf8

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTE_LEVEL = "ByteLevel"


class Reader(Protocol):
    """The part of an `Embedder`, or of a text tower, that tokenises."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""

    @property
    def context(self) -> int:
        """Largest number of tokens that the model reads, start and end included."""

    def tokenize(self, text: str) -> Tokens:
        """Tokenise `text` and truncate it to the context."""


@dataclass(frozen=True)
class Tokenized:
    """One text as a model tokenises it."""

    text: str
    """The tokenised text: as it was given, or cleaned if the model does that."""
    count: int
    """Number of tokens of the whole text, start and end included."""
    context: int
    """Largest number of tokens that the model reads, start and end included."""
    cut_at: int | None
    """Index of the character of `text` from which it is truncated because it is too long; None if it fits."""
    ids: list[int]
    """The token ids that the model reads, at most `context`."""
    pieces: list[str]
    """The entry of the vocabulary for each id, in readable characters: `</w>` ends a word."""

    @property
    def lost(self) -> str:
        """The part of the text that the model does not read."""
        return "" if self.cut_at is None else self.text[self.cut_at :]


def tokenized(reader: Reader, texts: Iterable[str]) -> list[Tokenized]:
    """Tokenise each text.

    Raises:
        InputError: a text is not valid Unicode, as an argument of a command line need not be.
    """
    tokenizer = reader.tokenizer
    written = readable if _is_byte_level(json.loads(tokenizer.to_str())) else str
    return [_tokenized(reader, tokenizer, text, written) for text in texts]


def _tokenized(reader: Reader, tokenizer: Tokenizer, text: str, written: Callable[[str], str]) -> Tokenized:
    check_utf8(text, "The text")
    read, ids, cut_at = reader.tokenize(text)
    tokenizer.no_truncation()
    count = len(tokenizer.encode(read).ids)
    pieces = [written(tokenizer.id_to_token(number) or "") for number in ids]
    return Tokenized(read, count, reader.context, cut_at, ids, pieces)


def readable(piece: str) -> str:
    r"""Decode a piece of a byte-level vocabulary; the bytes of an incomplete character are written as `\xf0`."""
    if not all(character in _BYTES for character in piece):
        return piece  # an added token, which is not in the byte alphabet
    return bytes(_BYTES[character] for character in piece).decode("utf-8", "backslashreplace")


def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    Such vocabularies (Radford et al. 2019, section 2.2) are made of bytes. A byte that is a visible character of
    Latin-1 is written as that character; the others are written, in order, as the characters after Latin-1.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(0x100) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _byte_alphabet()


def _is_byte_level(part: object) -> bool:
    """Whether a tokenizer's description, or a part of it, has a byte-level step."""
    if isinstance(part, dict):
        steps: Iterable[object] = (part.get(name) for name in ("pre_tokenizer", "pretokenizers"))
        return part.get("type") == _BYTE_LEVEL or any(map(_is_byte_level, steps))
    return isinstance(part, list) and any(map(_is_byte_level, part))
