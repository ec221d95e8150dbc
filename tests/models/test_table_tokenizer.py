"""Tokenising from tables gives what the tokenizers library gives, or says that it has to be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PICTUREBOOK
from families import corpus, gemma_like, sentence_pieces, xlm_roberta
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer

from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_numpy import tower_cache
from clipsearch.models.in_numpy.table_tokenizer import BytePairs, QuickTokenizer, Rules, quick, quick_of
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.models.in_torch.siglip_tokenizer import converted

LETTERS = "abcdefgh XYZ ,.!?'\"-_éüßñ ΣσςŁł日本語한국어😀🐶\u200d\t\n İı\uff11ﬁ№…“”«»▁</w>"


def like_clip(folder: Path) -> Tokenizer:
    """A byte-level tokenizer with marked ends of words, as CLIP has it."""
    del folder
    tokenizer = Tokenizer(BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=1200, special_tokens=["<s>", "<e>"], initial_alphabet=alphabet, end_of_word_suffix="</w>"
    )
    # Every byte must be known at the end of a word, too.
    tokenizer.train_from_iterator([*corpus(), *(f"{letter} " for letter in alphabet)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <e>", special_tokens=[("<s>", 0), ("<e>", 1)]
    )
    return tokenizer


def gemma(folder: Path) -> Tokenizer:
    tokenizer: Tokenizer = gemma_like(folder).backend_tokenizer
    return tokenizer


def picturebook(folder: Path) -> Tokenizer:
    del folder
    return Tokenizer.from_file(str(PICTUREBOOK / "tokenizer.json"))


def siglip(folder: Path) -> Tokenizer:
    """Sentence pieces of the unigram kind, without ASCII's punctuation."""
    from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

    theirs: Any = SiglipTokenizer(str(sentence_pieces(folder)))
    return converted(theirs)


def xlm(folder: Path) -> Tokenizer:
    """Sentence pieces with a start token, as XLM-R has them."""
    xlm_roberta(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(params=[like_clip, gemma, picturebook, siglip, xlm])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tokenizer, QuickTokenizer]:
    tokenizer = request.param(tmp_path)
    known = quick_of(tokenizer)
    assert known is not None
    return tokenizer, known


def test_ids_are_those_of_the_library(both: tuple[Tokenizer, QuickTokenizer]) -> None:
    tokenizer, known = both
    rng = np.random.default_rng(0)
    made_up = ["".join(rng.choice(list(LETTERS), size)) for size in rng.integers(0, 60, 2000)]
    answered = 0
    for text in [*corpus(), *made_up]:
        found = known.encode(text)
        assert found in (None, tokenizer.encode(text).ids), repr(text)
        answered += found is not None
    assert answered > 300  # picturebook has no letters but those of English


def test_the_library_is_asked_for_special_tokens_unknown_letters_and_very_long_texts(
    both: tuple[Tokenizer, QuickTokenizer],
) -> None:
    _, known = both
    assert known.encode("a dog") is not None
    assert known.encode(f"a {known.rules.special[0]} dog") is None
    assert known.encode("a dog " * 400) is None


def test_rules_survive_being_written_down(both: tuple[Tokenizer, QuickTokenizer]) -> None:
    _, known = both
    again = quick(Rules.from_json(known.rules.json()), known.tables)
    assert again.encode("a dog is sleeping") == known.encode("a dog is sleeping")
    assert not json.loads(known.rules.steps)["model"]["vocab"]


def test_a_tokenizer_of_another_kind_has_no_tables() -> None:
    assert quick_of(Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))) is None  # noqa: S106


def test_a_tokenizer_that_behaves_otherwise_has_no_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokenizer = like_clip(tmp_path)
    real = BytePairs._word

    def wrong(self: BytePairs, word: str) -> list[int] | None:
        found = real(self, word)
        return found[::-1] if found and len(found) > 1 else found

    monkeypatch.setattr(BytePairs, "_word", wrong)
    assert quick_of(tokenizer) is None


def test_a_text_tower_reads_its_vocabulary_only_when_it_has_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPSEARCH_CACHE", str(tmp_path))
    encoder = Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu")
    assert encoder.save_text_tower()
    tower: Any = tower_cache.load(encoder.fingerprint)
    texts = ["a dog", "a cat in the snow"]
    np.testing.assert_allclose(tower.encode_texts(texts), encoder.encode_texts(texts), atol=4e-6)
    assert "tokenizer" not in vars(tower)
    assert tower.tokenize("dog " * 200) == encoder.tokenize("dog " * 200)  # cut, which only the library can say where
    assert "tokenizer" in vars(tower)
    for number in range(60):
        assert tower.tokenize(f"{number % 9} dogs") == encoder.tokenize(f"{number % 9} dogs")
