"""CLIP's tokenizer as in open_clip: built from the list of merges that all CLIP models share, after cleaning texts.

open_clip's checkpoints contain no tokenizer, since there is only one (Radford et al. 2021, section 2.4): 256 bytes, the
same bytes at the end of a word, 48,894 merges in order of frequency, and the tokens for start and end of a text. The
list is not part of clipsearch either; it is looked for beside the model, in installed packages and in other CLIP models
on this disk, and recognised by its hash. Knows nothing of weights.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
"""The list of merges as OpenAI published it."""
TOKENS = 49_408
"""Size of the vocabulary; the last two ids are the start and the end of a text."""

_START, _END = "<start_of_text>", "<end_of_text>"
_MERGES = TOKENS - 2 * 256 - 2
_DIGEST = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"
"""SHA-256 of the merges, one per line."""
_PACKAGES = ("open_clip", "clip")
"""Packages that contain the file that OpenAI published."""

# The expression for one word. open_clip's ignores case, which has two effects that are written out here: U+017F, the
# long s, counts as an s, and U+0345, the iota subscript, is skipped, since it is no letter but has an upper case.
_IOTA = "\u0345"
_WORDS = (
    r"<[s\x{17f}]tart_of_text>|<end_of_text>|'[s\x{17f}]|'t|'re|'ve|'m|'ll|'d|"
    rf"\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}{_IOTA}]+"
)


def clean(text: str) -> str:
    """Clean a text as open_clip does before it tokenises.

    Wrongly decoded characters are repaired, HTML entities replaced, runs of white space reduced to one space, and all
    letters made lower case. A space is put into the name of a special token that follows punctuation, so that it is
    not taken for the token.
    """
    if text.isascii() and text.isprintable() and "&" not in text:
        mended = text  # the steps below would change nothing, and importing ftfy takes 30 ms
    else:
        import html

        import ftfy

        mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return _apart(" ".join(mended.split()).lower())


def find_tokenizer(folder: Path) -> Tokenizer:
    """Build the tokenizer of the open_clip model in `folder`; texts have to be cleaned first (see `clean`).

    The list of merges is looked for in the folder, in installed packages and in the hub's cache, in this order.

    Raises:
        ModelError: the list of merges is not found.
    """
    for path in _candidates(folder):
        merges = _read(path)
        if hashlib.sha256("\n".join(merges).encode()).hexdigest() == _DIGEST:
            return _tokenizer(merges)
    raise ModelError(
        f"{folder} is an open_clip model without a tokenizer, and CLIP's list of merges is nowhere else on this disk. "
        f"Copy {VOCABULARY} from github.com/openai/CLIP into that folder, pip install open_clip_torch, "
        "or fetch a model that has it, such as openai.",
        hint="pull",
        model="openai",
    )


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield files that may hold CLIP's list of merges."""
    yield from (folder / name for name in ("merges.txt", "tokenizer.json", VOCABULARY))
    for name in _PACKAGES:
        if (package := find_spec(name)) and package.origin:
            yield Path(package.origin).parent / VOCABULARY
    from huggingface_hub import constants

    yield from sorted(Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/merges.txt"))


def _read(path: Path) -> list[str]:
    """Read the merges in a file, each as two pieces with a space between.

    The list is empty if the file is missing, damaged or something else. That is no error, because open_clip would use
    CLIP's list in any case.
    """
    import gzip  # not above: every query imports this module
    import zlib

    try:
        if path.suffix == ".json":
            merges = json.loads(path.read_text("utf-8"))["model"]["merges"]
            return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            # The first line is a title. OpenAI's file goes on with merges that CLIP does not use.
            return [line.rstrip("\n") for line in islice(lines, 1, 1 + _MERGES)]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
        return []


def _tokenizer(merges: list[str]) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

    # 1. Ids are positions in the vocabulary. Each byte is written as a visible letter; bytes that are visible letters
    # themselves come first.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(first, second) for first, second in (merge.split() for merge in merges)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(first + second for first, second in pairs)]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, _START, _END])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, end_of_word_suffix="</w>"))
    # 2. Texts are split into words at white space, and words into bytes.
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    # 3. The two special tokens.
    special = [(token, vocabulary[token]) for token in (_START, _END)]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token, _ in special])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{_START} $A {_END}", special_tokens=special)
    return tokenizer


def _apart(text: str) -> str:
    """Put a space into each name of a special token that open_clip would not take for one.

    open_clip finds a special token only where a word can begin, not within a run of punctuation, to which its `<` then
    belongs. The tokenizers library would find it everywhere. The words are the same with the space and without it.
    """
    word_begins = 0

    def written(name: re.Match[str]) -> str:
        nonlocal word_begins
        if name.start() != word_begins and _is_punctuation(text[name.start() - 1]):
            return f"< {name[0][1:]}"
        word_begins = name.end()
        return name[0]

    return re.sub(f"{_START}|{_END}", written, text)


def _is_punctuation(character: str) -> bool:
    return not character.isspace() and character != _IOTA and unicodedata.category(character)[0] not in "LN"
