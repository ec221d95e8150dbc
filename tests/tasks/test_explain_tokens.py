"""`clipsearch tokens`: pieces and ids of texts, and where long ones are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import families
import pytest
from conftest import PICTUREBOOK, Run, make_clip
from fresh import COMMAND, HEAVY, loaded_by
from tokenizers import Tokenizer

from clipsearch.errors import InputError
from clipsearch.models.in_numpy.text_tower import Tokens, tokenize
from clipsearch.tasks.explain_tokens import Tokenized, readable, tokenized


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(PICTUREBOOK / "tokenizer.json"))


class Reading(NamedTuple):
    """A tokenizer, and how many tokens a model reads."""

    tokenizer: Tokenizer
    context: int

    def tokenize(self, text: str) -> Tokens:
        return tokenize(self.tokenizer, text, self.context)


def read_as(tokenizer: Tokenizer, text: str, context: int) -> Tokenized:
    (one,) = tokenized(Reading(tokenizer, context), [text])
    return one


def told(run: Run, *arguments: str | bytes, cwd: Path) -> list[dict[str, Any]]:
    done = run("tokens", *arguments, "--model", "picturebook", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def test_pieces_and_ids_are_those_of_transformers(run: Run, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["a dog is sleeping", "Two unforeseeable   CATS, 12 of them!", "a cat's hat"]
    theirs = AutoTokenizer.from_pretrained(PICTUREBOOK)
    found = told(run, *texts, cwd=tmp_path)
    assert [one["text"] for one in found] == texts
    for one in found:
        ids = theirs(one["text"]).input_ids
        assert one["ids"] == ids
        assert one["pieces"] == theirs.convert_ids_to_tokens(ids)  # all of ASCII
        assert (one["count"], one["context"], one["cut_at"], one["lost"]) == (len(ids), 32, None, "")


def test_a_long_text_is_cut_where_the_model_stops_reading(tokenizer: Tokenizer) -> None:
    found = read_as(tokenizer, "a red dog and a cat", 5)
    assert found.count == 8
    assert len(found.ids) == len(found.pieces) == 5
    assert found.pieces == ["<|startoftext|>", "a</w>", "red</w>", "dog</w>", "<|endoftext|>"]
    assert (found.cut_at, found.lost) == (9, " and a cat")


def test_a_text_that_just_fits_is_not_cut(tokenizer: Tokenizer) -> None:
    found = read_as(tokenizer, "a red dog", 5)
    assert (found.count, found.cut_at, found.lost) == (5, None, "")
    assert read_as(tokenizer, "a red dog cat", 5).cut_at == 9
    # What was asked before makes no difference.
    assert read_as(tokenizer, "a red dog", 5) == found


def test_where_it_is_cut_counts_characters_not_bytes(tokenizer: Tokenizer) -> None:
    found = read_as(tokenizer, "ää dog cat", 6)
    assert found.cut_at is not None
    assert "ää dog cat"[: found.cut_at] + found.lost == "ää dog cat"
    assert found.lost.endswith("dog cat")


def test_an_empty_text_is_a_start_and_an_end(tokenizer: Tokenizer) -> None:
    assert read_as(tokenizer, "", 32) == Tokenized("", 2, 32, None, [0, 1], ["<|startoftext|>", "<|endoftext|>"])


def test_a_text_that_is_no_unicode_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="UTF-8"):
        read_as(tokenizer, "caf\udce9", 32)


def letters(text: str) -> str:
    """`text` as a byte-level tokenizer writes it."""
    from tokenizers.pre_tokenizers import ByteLevel

    return "".join(piece for piece, _ in ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text))


@pytest.mark.parametrize("text", ["dog", "é", "犬", "🐶", "ßÿ¡", "a b", "".join(map(chr, range(0x250)))])
def test_byte_level_pieces_become_readable(text: str) -> None:
    assert readable(letters(text)) == text


def test_half_characters_and_added_tokens_stay_what_they_are() -> None:
    assert readable(letters("é")[0]) == r"\xc3"
    assert readable(letters("aé")[:2] + "</w>") == r"a\xc3</w>"
    assert readable("<|startoftext|>") == "<|startoftext|>"
    assert readable("▁dog") == "▁dog"


def test_only_byte_level_vocabularies_are_read_as_bytes() -> None:
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = Tokenizer(WordLevel({"Ã©": 0, "?": 1}, unk_token="?"))  # noqa: S106  (no password)
    words.pre_tokenizer = Whitespace()
    assert read_as(words, "Ã©", 8).pieces == ["?", "?"]
    words.pre_tokenizer = None
    assert read_as(words, "Ã©", 8).pieces == ["Ã©"]


def test_another_model_has_another_context(run: Run, tmp_path: Path) -> None:
    make_clip(tmp_path / "model", context=6)
    done = run("tokens", "a dog is sleeping here", "--model", "model", "--json", cwd=tmp_path)
    (found,) = json.loads(done.stdout)
    assert (found["count"], found["context"], found["lost"]) == (9, 6, " here")


def test_texts_come_from_arguments_files_and_standard_input(tmp_path: Path, run: Run) -> None:
    (tmp_path / "texts.txt").write_text("third\n\nfourth\r\n", "utf-8")
    arguments = ("tokens", "first", "-", "--texts-from", "texts.txt", "--format", "tsv")
    done = run(*arguments, cwd=tmp_path, env={"CLIPSEARCH_MODEL": "picturebook"}, stdin=b"second\n")
    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [line[-1] for line in lines] == ["first", "second", "third", "fourth"]
    assert all(len(line) == 7 and line[1] == "32" and len(line[3].split()) == int(line[0]) for line in lines)


def test_formats(run: Run, tmp_path: Path) -> None:
    given = ["tokens", "a dog", "x\x1b\ty", "--model", "picturebook", "--format"]
    table = run(*given, "table", cwd=tmp_path).stdout.decode()
    assert table.startswith("a dog\ntoken   id  piece\n    1    0  <|startoftext|>\n")
    assert "4 of 32 tokens, start and end included\n\nx\\x1b\\ty\n" in table
    assert "\x1b" not in table
    csv = run(*given, "csv", cwd=tmp_path).stdout.decode()
    assert csv.startswith("count,context,cut_at,ids,pieces,lost,text\r\n4,32,,0 274 629 1,<|startoftext|> a</w>")
    lines = run(*given, "jsonl", cwd=tmp_path).stdout.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["a dog", "x\x1b\ty"]


def test_a_table_shows_what_is_lost(run: Run, tmp_path: Path) -> None:
    text = "dog " * 31 + "cat"
    done = run("tokens", text, "--model", "picturebook", "--format", "table", cwd=tmp_path)
    assert done.stdout.decode().endswith(
        "34 of 32 tokens, start and end included\ncut at character 119; not read: dog cat\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "clipsearch tokens"),
        (["-", "--texts-from", "-"], "standard input"),
        (["--texts-from", "nowhere.txt"], "nowhere.txt"),
        ([b"caf\xe9"], "UTF-8"),
        (["a", "--json", "--format", "csv"], "format"),
    ],
)
def test_bad_input_is_one_line(run: Run, tmp_path: Path, arguments: list[str | bytes], said: str) -> None:
    done = run("tokens", *arguments, "--model", "picturebook", cwd=tmp_path)
    message = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert message.count("\n") == 1
    assert said in message


def test_it_needs_no_model_library(sample_index: Path, environment: dict[str, str]) -> None:
    code = COMMAND.format(arguments=["clipsearch", "tokens", "a dog"])
    assert not loaded_by(code, environment, sample_index) & HEAVY
    code = COMMAND.format(arguments=["clipsearch", "tokens", "--help"])
    assert not loaded_by(code, environment, sample_index) & (HEAVY | {"numpy", "tokenizers"})


def test_korean_emoji_and_long_texts_are_shown_as_each_model_reads_them(run: Run, tmp_path: Path) -> None:
    texts = ["개가 자고 있다", "🐶", "A Dog, isn't it?", "a dog and a cat " * 10]
    expected: dict[str, list[list[str] | None]] = {
        "siglip": [["▁", "개", "가"], ["▁", "<unk>", "</s>"], ["▁a", "▁dog"]],
        "siglip2": [None, ["<0xF0>", "<0x9F>", "<0x90>", "<0xB6>", "<eos>"], None],
    }
    for name, pieces in expected.items():
        folder = families.make(name, tmp_path / name)
        done = run("tokens", *texts, "--model", folder, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        found = json.loads(done.stdout)
        for one, wanted in zip(found, pieces, strict=False):
            if wanted is not None:
                assert one["pieces"][: len(wanted)] == wanted
        assert [one["cut_at"] is None for one in found] == [True, True, True, False]
        assert (found[3]["context"], len(found[3]["ids"])) == (16, 16)
        assert found[3]["count"] > 40
        assert texts[3].endswith(found[3]["lost"])
