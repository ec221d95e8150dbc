"""Tokenizers over memory-mapped tables, for the few texts of a query.

The `tokenizers` library reads a whole vocabulary before its first text: 0.05 s for CLIP's 49,408 tokens, and ten times
that for the 256,000 of SigLIP 2. A text needs a few dozen entries, which are found here by binary search. The library,
without a vocabulary, does the steps before (normalising, splitting into words), and, with its vocabulary, rare cases:
special tokens within a text, letters that the vocabulary lacks.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Table = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Tables = Mapping[str, Table]

_HALF = 32
"""Number of bits of an id; a pair of ids is written as one number of 64 bits."""
_LONGEST = 2_000
"""Limit in characters; longer texts are left to the library, which needs no search for each piece."""
_PROBES = (
    *("a dog is sleeping", "A photo of 2 cats, isn't it?", "", " ", "naïve café — “quoted”", "new\nline\ttab"),
    *("개가 자고 있다", "собака спит", "犬が寝ている", "🐶 on a 🏖️", "don't   stop!!! #42 @home", "x" * 30),
)
"""Texts for a comparison of tables and library; if they disagree on one, the tables are not used."""


@dataclass(frozen=True)
class Rules:
    """The description of a tokenizer, apart from its tables."""

    kind: str
    """The library's name for its model: BPE or Unigram."""
    steps: str
    """The tokenizer's description without its vocabulary: how texts are normalised and split."""
    special: list[str]
    """Special tokens, which are looked for before anything else."""
    before: list[int]
    """Ids that are put before each text."""
    after: list[int]
    """Ids that are put after each text."""

    def json(self) -> str:
        """Return JSON for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Rules:
        """Restore what `json` returned."""
        return cls(**json.loads(text))


class QuickTokenizer(ABC):
    """A tokenizer that finds ids in tables, and leaves the texts for which these do not suffice to the library."""

    def __init__(self, rules: Rules, tables: Tables) -> None:
        from tokenizers import Tokenizer

        self.rules = rules
        self.tables = tables
        self._steps = Tokenizer.from_str(rules.steps)
        self._words: dict[str, list[int] | None] = {}

    def encode(self, text: str) -> list[int] | None:
        """Return the ids of a text, with those before and after it; None if the library is needed."""
        if len(text) > _LONGEST or self._has_special(text):
            return None
        if self._steps.normalizer is not None:
            text = self._steps.normalizer.normalize_str(text)
            if self._has_special(text):
                return None
        words = [text] if text else []
        if self._steps.pre_tokenizer is not None:
            words = [word for word, _ in self._steps.pre_tokenizer.pre_tokenize_str(text)]
        ids = list(self.rules.before)
        for word in words:
            if word not in self._words:
                self._words[word] = self._word(word)
            known = self._words[word]
            if known is None:
                return None
            ids += known
        return ids + self.rules.after

    def _has_special(self, text: str) -> bool:
        return any(token in text for token in self.rules.special)

    @abstractmethod
    def _word(self, word: str) -> list[int] | None:
        """Return the ids of a word; None if the tables do not suffice."""


class BytePairs(QuickTokenizer):
    """Byte pair encoding (Sennrich et al. 2016, section 3.2).

    Of all neighbours in a word, those whose merge was learned first are joined, the leftmost first, until none can be.

    The tables are `pairs` of ids as one number, sorted, with the `ranks` of their merges and the ids that are `made`;
    `letters` as code points, sorted, with `letter_ids`; `last_letters`, which end a word, with `last_letter_ids`; and
    the ids of single `bytes`, -1 where there is none.
    """

    def _word(self, word: str) -> list[int] | None:
        ids: list[int] = []
        for place, letter in enumerate(word):
            kind = "last_letter" if place == len(word) - 1 else "letter"
            found = self._letter(kind, letter)
            if found is None:
                found = [int(self.tables["bytes"][byte]) for byte in letter.encode()]
                if min(found) < 0:
                    return None
            ids += found
        pairs, ranks, made = (self.tables[name] for name in ("pairs", "ranks", "made"))
        while len(ids) > 1 and len(pairs):
            wanted = np.array([a << _HALF | b for a, b in pairwise(ids)], np.int64)
            places = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
            order = np.where(pairs[places] == wanted, ranks[places], len(pairs))
            first = int(order.argmin())
            if order[first] == len(pairs):
                break
            ids[first : first + 2] = [int(made[places[first]])]
        return ids

    def _letter(self, kind: str, letter: str) -> list[int] | None:
        letters = self.tables[f"{kind}s"]
        place = int(np.searchsorted(letters, ord(letter)))
        if place == len(letters) or letters[place] != ord(letter):
            return None
        return [int(self.tables[f"{kind}_ids"][place])]

    @staticmethod
    def tables_of(model: dict[str, Any]) -> Tables | None:
        """Make the tables of a model from the library's description; return None if its rules are not known here."""
        if model.get("dropout") or model.get("ignore_merges") or model.get("continuing_subword_prefix"):
            return None
        vocabulary: dict[str, int] = model["vocab"]
        end = model.get("end_of_word_suffix") or ""
        merges = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
        pairs = np.array([vocabulary[a] << _HALF | vocabulary[b] for a, b in merges], np.int64)
        made = np.array([vocabulary[a + b] for a, b in merges], np.int64)
        # A pair that is listed twice counts where it stands first.
        sorted_pairs, ranks = np.unique(pairs, return_index=True)
        letters = sorted((ord(token), number) for token, number in vocabulary.items() if len(token) == 1)
        last = letters
        if end:
            ends = ((token.removesuffix(end), number) for token, number in vocabulary.items() if token.endswith(end))
            last = sorted((ord(letter), number) for letter, number in ends if len(letter) == 1)
        fallback = bool(model.get("byte_fallback"))
        raw = [vocabulary.get(f"<0x{byte:02X}>", -1) if fallback else -1 for byte in range(256)]
        return {
            "pairs": sorted_pairs,
            "ranks": ranks.astype(np.int64),
            "made": made[ranks],
            "letters": np.array([point for point, _ in letters], np.int64),
            "letter_ids": np.array([number for _, number in letters], np.int64),
            "last_letters": np.array([point for point, _ in last], np.int64),
            "last_letter_ids": np.array([number for _, number in last], np.int64),
            "bytes": np.array(raw, np.int64),
        }


class Pieces(QuickTokenizer):
    """The unigram model (Kudo 2018, section 3.2): the likeliest segmentation of a word into known pieces.

    The tables are the `hashes` of the pieces, sorted, with their `ids` and `scores` (logarithms of probabilities), and
    the `longest` piece, in characters.
    """

    def _word(self, word: str) -> list[int] | None:
        longest = int(self.tables["longest"][0])
        spans = [
            (start, end) for start in range(len(word)) for end in range(start + 1, min(len(word), start + longest) + 1)
        ]
        hashes = self.tables["hashes"]
        wanted = np.array([_hash(word[start:end]) for start, end in spans], np.int64)
        places = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
        known = hashes[places] == wanted
        # For each position the best segmentation up to it: its score, and the start and id of its last piece. Spans are
        # in order of their starts, so the segmentation up to a start is final before it is extended.
        best: list[tuple[float, int, int]] = [(0.0, 0, -1)] + [(-math.inf, 0, -1)] * len(word)
        for (start, end), place, is_piece in zip(spans, places.tolist(), known.tolist(), strict=True):
            score = best[start][0] + float(self.tables["scores"][place]) if is_piece else -math.inf
            if score > best[end][0]:
                best[end] = (score, start, int(self.tables["ids"][place]))
        if best[-1][0] == -math.inf or not _each_letter_is_known(word, spans, known.tolist()):
            return None  # the library takes an unknown letter for a piece with a low score
        ids: list[int] = []
        end = len(word)
        while end:
            _, start, number = best[end]
            ids.append(number)
            end = start
        return ids[::-1]

    @staticmethod
    def tables_of(model: dict[str, Any]) -> Tables | None:
        """Make the tables of a model from the library's description; return None if its rules are not known here."""
        pieces = [(piece, score, number) for number, (piece, score) in enumerate(model["vocab"])]
        pieces = [one for one in pieces if one[0] and one[2] != model["unk_id"]]
        hashes = np.array([_hash(piece) for piece, _, _ in pieces], np.int64)
        order = np.argsort(hashes)
        if len(np.unique(hashes)) < len(hashes):
            return None
        return {
            "hashes": hashes[order],
            "ids": np.array([number for _, _, number in pieces], np.int64)[order],
            "scores": np.array([score for _, score, _ in pieces], np.float64)[order],
            "longest": np.array([max(len(piece) for piece, _, _ in pieces)], np.int64),
        }


_KINDS: dict[str, type[BytePairs | Pieces]] = {"BPE": BytePairs, "Unigram": Pieces}


def quick(rules: Rules, tables: Tables) -> QuickTokenizer:
    """Return the tokenizer that `rules` and `tables` describe."""
    return _KINDS[rules.kind](rules, tables)


def quick_of(tokenizer: Tokenizer) -> QuickTokenizer | None:
    """Make tables of a tokenizer; return None where it is of another kind, or where the tables give other ids."""
    described = json.loads(tokenizer.to_str())
    kind = described["model"]["type"]
    tables = _KINDS[kind].tables_of(described["model"]) if kind in _KINDS else None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    around = tokenizer.encode("a").ids
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    starts = [i for i in range(len(around)) if around[i : i + len(plain)] == plain]
    if tables is None or not starts:
        return None
    special = [token["content"] for token in described["added_tokens"]]
    after = around[starts[0] + len(plain) :]
    made = quick(Rules(kind, _without_vocabulary(described), special, around[: starts[0]], after), tables)
    wrong = any(made.encode(text) not in (None, tokenizer.encode(text).ids) for text in _PROBES)
    return None if wrong or made.encode("a") is None else made


def _without_vocabulary(described: dict[str, Any]) -> str:
    """Return the description of a tokenizer with an empty vocabulary: only the steps before it."""
    nothing = {"type": "BPE", "vocab": {}, "merges": []}
    kept = {name: described[name] for name in ("version", "normalizer", "pre_tokenizer")}
    return json.dumps(
        kept
        | {"model": nothing, "added_tokens": [], "truncation": None, "padding": None}
        | {"post_processor": None, "decoder": None}
    )


def _hash(piece: str) -> int:
    """Hash a piece to a signed number of 64 bits, by BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest(), "little", signed=True)


def _each_letter_is_known(word: str, spans: list[tuple[int, int]], known: list[bool]) -> bool:
    """Return whether every letter is a piece, so that no better segmentation has an unknown letter."""
    single = {start for (start, end), is_piece in zip(spans, known, strict=True) if is_piece and end == start + 1}
    return len(single) == len(word)
