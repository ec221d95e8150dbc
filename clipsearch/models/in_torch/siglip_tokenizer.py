"""Conversion of SigLIP's tokenizer to one of the `tokenizers` library, which queries use.

transformers' `SiglipTokenizer` runs SentencePiece after steps in Python; the converted tokenizer gives the same ids
without either. (If a compatibility character is followed by a combining mark, the two normalise it differently.)
"""

from __future__ import annotations

import re
import string
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers.convert_slow_tokenizer import SpmConverter

_SPACE = "▁"
"""SentencePiece's character for a space."""


def converted(tokenizer: Any) -> Tokenizer:  # noqa: ANN401  (a SiglipTokenizer, which transformers leaves untyped)
    """Convert a `SiglipTokenizer`."""
    described = SpmConverter(tokenizer).proto
    pieces = [(piece.piece, piece.score) for piece in described.pieces]
    training = described.trainer_spec
    made = Tokenizer(Unigram(pieces, training.unk_id, byte_fallback=training.byte_fallback))
    made.add_special_tokens(
        [AddedToken(str(token), normalized=False) for token in (tokenizer.eos_token, tokenizer.unk_token)]
    )
    # 1. The steps of SiglipTokenizer in Python: lower case, no punctuation, single spaces.
    steps: list[Any] = [normalizers.Lowercase()] if tokenizer.do_lower_case else []
    steps += [
        normalizers.Replace(_SPACE, " "),
        normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
    ]
    # 2. The steps of SentencePiece: its table of equivalent characters, then a mark before each word.
    if table := described.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(table))
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(
        single=["$A", str(tokenizer.eos_token)],
        special_tokens=[(str(tokenizer.eos_token), tokenizer.eos_token_id)],
    )
    return made
