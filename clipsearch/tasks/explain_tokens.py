"""What a model's tokenizer makes of a text, for people: pieces, ids, and where a long text is cut.

Knows nothing of where a tokenizer comes from.
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
    """What reads texts: a model's `Embedder`, or its text tower."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts to ids."""

    @property
    def context(self) -> int:
        """Most tokens that fit, start and end included."""

    def tokenize(self, text: str) -> Tokens:
        """Token ids of `text`, cut to the context."""


@dataclass(frozen=True)
class Tokenized:
    """One text as a model reads it."""

    text: str
    """What is tokenised: the text as it was given, or cleaned if the model wants that."""
    count: int
    """Tokens of the whole text, start and end included."""
    context: int
    """Most tokens that the model reads, start and end included."""
    cut_at: int | None
    """The character of `text` (from 0) at which it is cut because it is too long; None if it fits."""
    ids: list[int]
    """What the model reads, at most `context`."""
    pieces: list[str]
    """The same as the vocabulary has it, readable: `</w>` ends a word."""

    @property
    def lost(self) -> str:
        """What the model does not read."""
        return "" if self.cut_at is None else self.text[self.cut_at :]


def tokenized(reader: Reader, texts: Iterable[str]) -> list[Tokenized]:
    """What a model makes of each text.

    Raises:
        InputError: a text is not Unicode, as a command line's need not be.
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
    r"""A piece of a byte-level vocabulary with the characters that its bytes are; half characters are as `\xf0`."""
    if not all(character in _BYTES for character in piece):
        return piece  # a token that was added, and is no bytes
    return bytes(_BYTES[character] for character in piece).decode("utf-8", "backslashreplace")


def _byte_alphabet() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for.

    Such vocabularies (Radford et al. 2019, section 2.2) have bytes for letters. Those that are visible Latin-1
    characters stand for themselves, and the others, in their order, for what follows Latin-1.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(0x100) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _byte_alphabet()


def _is_byte_level(part: object) -> bool:
    """Whether a tokenizer's description, or a part of it, has a step that makes bytes of texts."""
    if isinstance(part, dict):
        steps: Iterable[object] = (part.get(name) for name in ("pre_tokenizer", "pretokenizers"))
        return part.get("type") == _BYTE_LEVEL or any(map(_is_byte_level, steps))
    return isinstance(part, list) and any(map(_is_byte_level, part))
