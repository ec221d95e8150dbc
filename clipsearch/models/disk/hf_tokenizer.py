"""Loading of tokenizers without transformers, with the same result as its AutoTokenizer.

For the tokenizer classes of CLIP, Gemma and SigLIP 2, transformers reads the vocabulary, the merges and the special
tokens from tokenizer.json, and builds normalizer and splitter itself; this module does the same. A folder with a
setting that is not known here is left to transformers. The tokenizer of open_clip is in `clip_bpe`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch.system.failures import is_shortage

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CLIP, _GEMMA, _SIGLIP2 = "CLIPTokenizer", "GemmaTokenizer", "Siglip2Tokenizer"
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token")
_DEFAULTS: dict[str, dict[str, Any]] = {
    _CLIP: {
        "bos_token": "<|startoftext|>",
        **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
        "padding_side": "right",
    },
    _GEMMA: {
        **{f"{name}_token": f"<{name}>" for name in ("bos", "eos", "unk", "pad", "mask")},
        "padding_side": "left",
    },
}
_DEFAULTS[_SIGLIP2] = _DEFAULTS[_GEMMA]
"""Defaults of transformers for fields that tokenizer_config.json leaves out."""
_INPUTS = ["input_ids", "attention_mask"]
_SETTINGS = {
    *("tokenizer_class", "padding_side", "model_input_names", "added_tokens_decoder", *_NAMED),
    # These do not change the ids of a text that is cut to the model's context.
    *("backend", "model_max_length", "clean_up_tokenization_spaces", "spaces_between_special_tokens", "is_local"),
    *("name_or_path", "special_tokens_map_file", "tokenizer_file", "processor_class", "local_files_only"),
    *(
        "add_bos_token",
        "add_eos_token",
        "do_lower_case",
        "errors",
        "add_prefix_space",
        "sp_model_kwargs",
        "use_default_system_prompt",
    ),
}
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_LOWER, _MARKED = {"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_NORMALIZERS: dict[str, dict[str, Any]] = {
    _CLIP: {
        "type": "Sequence",
        "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}, _LOWER],
    },
    _GEMMA: _MARKED,
    _SIGLIP2: {"type": "Sequence", "normalizers": [_LOWER, _MARKED]},
}
_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_SPLITTERS: dict[str, dict[str, Any]] = {
    _CLIP: {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    },
    _GEMMA: _SPLIT,
    _SIGLIP2: _SPLIT,
}
_BPE = {"type": "BPE", "dropout": None, "ignore_merges": False}
_PIECES = {"end_of_word_suffix": None, "continuing_subword_prefix": None, "fuse_unk": True, "byte_fallback": True}
_MODELS: dict[str, dict[str, Any]] = {
    _CLIP: _BPE
    | {"end_of_word_suffix": "</w>", "continuing_subword_prefix": "", "fuse_unk": False, "byte_fallback": False},
    _GEMMA: _BPE | _PIECES,
    _SIGLIP2: _BPE | _PIECES,
}


@dataclass(frozen=True)
class Found:
    """A tokenizer, and the padding that its files demand."""

    tokenizer: Tokenizer
    pad: int
    """Id of the padding."""
    left: bool
    """Whether the padding is before the text."""
    masked: bool
    """Whether attention ignores the padding."""


def find(folder: Path, family: str) -> Found | None:
    """Return the tokenizer of the model in `folder`, of the family `family`; None if transformers is needed for it."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        described = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        return _found(folder, settings, described, family)
    except Exception as error:  # tokenizers raises nothing narrower
        if is_shortage(error):
            raise
        return None  # transformers will report what is wrong


def _found(folder: Path, settings: dict[str, Any], described: dict[str, Any], family: str) -> Found | None:
    from tokenizers import Tokenizer

    kind = _kind(settings, family)
    dictionaries = [token for name in _NAMED if isinstance(token := settings.get(name), dict)]
    as_transformers = all(token.get("__type") == "AddedToken" for token in dictionaries)
    if kind is None or not as_transformers or not settings.keys() <= _SETTINGS:
        return None
    # 1. Special tokens are those of tokenizer.json, unless other files name others.
    model, named = described["model"], _named(settings, kind)
    ids: dict[str, int] = {token["content"]: token["id"] for token in described["added_tokens"]}
    if not set(named.values()) <= ids.keys() or not _agree(folder, settings, named, described["added_tokens"]):
        return None
    # 2. The vocabulary is that of the file, the steps before it are those of the class.
    rules = {"vocab": model["vocab"], "merges": model["merges"], "unk_token": named["unk_token"]}
    new = described | {"model": _MODELS[kind] | rules, "normalizer": _NORMALIZERS[kind]}
    new |= {"pre_tokenizer": _SPLITTERS[kind], "truncation": None, "padding": None}
    # 3. The tokens before and after a text are determined by CLIP's class; other classes leave them to the file.
    if kind == _CLIP:
        start, stop = ([named[name], ids[named[name]]] for name in ("bos_token", "eos_token"))
        ends = {"type": "RobertaProcessing", "sep": stop, "cls": start}
        new["post_processor"] = ends | {"trim_offsets": False, "add_prefix_space": False}
    tokenizer = Tokenizer.from_str(json.dumps(new))
    side = (described.get("padding") or {}).get("direction", _DEFAULTS[kind]["padding_side"])
    left = str(settings.get("padding_side", side)).lower() == "left"
    masked = "attention_mask" in settings.get("model_input_names", _INPUTS)
    return Found(tokenizer, ids[named["pad_token"]], left=left, masked=masked)


def _kind(settings: Mapping[str, Any], family: str) -> str | None:
    """Return the class that transformers uses; None if it is not known here."""
    if family == "siglip2":  # whatever the settings say
        return _SIGLIP2
    kind = str(settings.get("tokenizer_class")).removesuffix("Fast")
    known = {"clip": (_CLIP,), "clipseg": (_CLIP,), "siglip": (_GEMMA, _SIGLIP2)}
    return kind if kind in known.get(family, ()) else None


def _named(settings: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return the special tokens by their names, such as eos_token."""
    named = {name: settings.get(name, _DEFAULTS[kind].get(name)) for name in _NAMED}
    return {name: _content(token) for name, token in named.items() if token is not None}


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _agree(
    folder: Path, settings: Mapping[str, Any], named: Mapping[str, str], added: Sequence[Mapping[str, Any]]
) -> bool:
    """Return whether the special tokens of the other files are those of tokenizer.json."""
    if (folder / "added_tokens.json").exists():
        return False
    again = settings.get("added_tokens_decoder")
    if again and {int(i): {**token, "id": int(i)} for i, token in again.items()} != {t["id"]: dict(t) for t in added}:
        return False
    note = folder / "special_tokens_map.json"
    others = json.loads(note.read_text("utf-8")) if note.exists() else {}
    return all(named.get(name) == _content(token) for name, token in others.items())
