"""CLIP's tokenizer from its list of merges: the same ids as open_clip's own and as OpenAI's published examples."""

# ruff: noqa: RUF001  (letters of many scripts that look alike are what this is about)

from __future__ import annotations

import gzip
import html
import json
import random
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import open_clip_reference
import pytest
from conftest import REPOSITORY, SAMPLES
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from warm import Warm

from clipsearch.errors import ModelError
from clipsearch.models.disk import clip_bpe
from clipsearch.models.disk.clip_bpe import VOCABULARY, clean, find_tokenizer
from clipsearch.models.in_numpy.text_tower import tokenize

GOLDENS = REPOSITORY.parent / "shared" / "goldens"
CONTEXT = 77

PHRASES = [
    "a dog is sleeping",
    "It's DON'T we'll they've I'd o'clock rock'n'roll",
    "3 cats, 12 dogs & 1,000.50 €",
    "AT&T R&D",
    "ein Mädchen im Süßwasser, Straße",
    "forêt d'été, cœur",
    "gato pequeño ¿dónde?",
    "łódź żółta gęś",
    "e\u0301te\u0301 n\u0303",
    "собака спит на диване",
    "ΟΔΥΣΣΕΥΣ ΚΑΙ ΣΙΣΥΦΟΣ Σ",
    "İSTANBUL ĞIŞ ıI",
    "השמש שוקעת",
    "غروب الشمس فوق البحر",
    "रसोई में लाल सेब",
    "ภูเขาในหมอก",
    "강아지가 자고 있다",
    "夕日に照らされた富士山",
    "一只在沙发上睡觉的狗",
    "ក្រុងភ្នំពេញ",
    "日",
    "\ufffd",
    "ᾳ α\u0345 x\u0345y \u0345<end_of_text>",
    "🐶 sleeping 👩‍👩‍👧‍👦 🏳️‍🌈 🇰🇷",
    "🐶",
    "ﬁne ﬂuﬀy ﬆone",
    "ﬅarke \u017fein '\u017f",
    "\u212a \u212b \u2126",
    "½ ² Ⅷ ① ٣ ৪",
    "\u0345",
    "“curly” ‘quotes’ „unten‟ it’s",
    "ＬＯＵＤ　ＮＯＩＳＥＳ！",
    "a\u00adb\u200bc\u2060d\ufeffe",
    "\u200b",
    "!\u0345<start_of_text>",
    "&lt;b&gt; &amp;amp; &eacute; &#x1F436; &#39;s &nbsp;x &notit;",
    "<p>&amp;</p>",
    "&amp;amp;lt;",
    "&lt;end_of_text&gt;",
    "tab\tnew\nline\r\nfeed\x0cend\x0b",
    "bell\x07 nul\x00 esc\x1b[31mred\x1b[0m del\x7f",
    "\x1c\x1d\x1e\x1f \x85 \u2028 \u2029",
    "<start_of_text>",
    "a<end_of_text>b",
    "!<end_of_text>",
    "<end_of_text><end_of_text>",
    "!<end_of_text><end_of_text>",
    "<end_of_text",
    "<END_OF_TEXT> x",
    "<\u017ftart_of_text>",
    "'s<start_of_text>'s",
    "1<start_of_text>?<start_of_text>!",
    "é<end_of_text>",
    "\u0301<end_of_text>",
    "'<end_of_text>",
    "",
    " ",
    "   \t ",
    "a",
    "!",
    "'",
    "''",
    "'s",
    "'S",
    "s's's",
    "...",
    "-",
    "<|endoftext|> <|startoftext|>",
]
"""Words of many scripts, and everything that a tokenizer could take in another way."""


def mojibake(text: str) -> str:
    """`text` in UTF-8, read as if it were Windows's or Latin 1."""
    return text.encode().decode("cp1252", "replace") if len(text) % 2 else text.encode().decode("latin-1")


def sentences() -> list[str]:
    """A few thousand, always the same ones."""
    chance = random.Random(0)
    words = " ".join(PHRASES).split()
    # Whether a newer character is a letter, open_clip's and tokenizers' tables need not agree: they are of other years.
    old = [chr(code) for code in range(0x20, 0x10000) if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs")]
    common = [*map(chr, range(0x20, 0x7F)), *map(chr, range(0xA0, 0x500)), *map(chr, range(0x1F300, 0x1F700))]
    letters = [*chance.sample(old, 2_000), *common]
    found = [*PHRASES, *map(mojibake, PHRASES), *map(html.escape, PHRASES), *map(str.upper, PHRASES)]
    found += (SAMPLES / "captions.csv").read_text("utf-8").splitlines()
    found += [" ".join(chance.choices(words, k=chance.randint(1, 12))) for _ in range(1_200)]
    found += ["".join(chance.choices(words, k=chance.randint(1, 6))) for _ in range(600)]
    found += [mojibake(" ".join(chance.choices(words, k=4))) for _ in range(300)]
    found += ["".join(chance.choices(letters, k=chance.randint(1, 40))) for _ in range(1_500)]
    found += [" ".join(chance.choices(words, k=chance.randint(60, 400))) for _ in range(100)]
    found += ["a" * 10_000, "ab " * 5_000, "日" * 3_000, "!" * 500, "<end_of_text>" * 100, "&amp;" * 1_000]
    return found


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but CLIP's list of merges."""
    folder = tmp_path_factory.mktemp("vocabulary")
    if (GOLDENS / VOCABULARY).is_file():
        shutil.copy(GOLDENS / VOCABULARY, folder)
    else:
        shutil.copy(open_clip_reference.available() / "open_clip" / VOCABULARY, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> Tokenizer:
    return find_tokenizer(vocabulary)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """What the text tower reads, padded as open_clip does it."""
    found = tokenize(tokenizer, text, CONTEXT, cleaned=True).ids
    return found + [0] * (CONTEXT - len(found))


def test_ids_and_cleaned_texts_equal_open_clips(tmp_path: Path, tokenizer: Tokenizer, with_torch: Warm) -> None:
    texts = sentences()
    assert len(set(texts)) > 4_000
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    request = {"what": "tokenize", "texts": str(tmp_path / "texts.json")}
    answer = open_clip_reference.ask(with_torch, tmp_path, request)[0]
    cleaned = json.loads(answer["cleaned"].tobytes())
    differing = [text for text, wanted in zip(texts, answer["ids"], strict=True) if ids(tokenizer, text) != [*wanted]]
    assert differing == []
    # Only the space that keeps a name from being taken for a special token is ours.
    ours = [clean(text).replace("< start_of", "<start_of").replace("< end_of", "<end_of") for text in texts]
    assert ours == [text.replace("< start_of", "<start_of").replace("< end_of", "<end_of") for text in cleaned]


def test_ids_are_those_that_openai_published(tokenizer: Tokenizer) -> None:
    published = json.loads((GOLDENS / "goldens.json").read_text())["tokenizer"] if GOLDENS.is_dir() else []
    published.append({"text": "a diagram", "ids": [49406, 320, 22697, 49407]})
    for example in published:
        assert tokenize(tokenizer, example["text"], CONTEXT, cleaned=True).ids == example["ids"]


def test_a_saved_tokenizer_gives_the_same_ids(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [ids(again, text) for text in PHRASES] == [ids(tokenizer, text) for text in PHRASES]


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_printable_ascii_is_not_changed_by_ftfy_or_html(text: str) -> None:
    import ftfy

    if "&" not in text:
        assert html.unescape(ftfy.fix_text(text)) == text


def test_plain_english_imports_no_ftfy() -> None:
    code = (
        "import sys; from clipsearch.models.disk.clip_bpe import clean;"
        "print(clean('A <b> dog!'), 'ftfy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "a <b> dog! False\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  A  Dog\tsleeps \n", "a dog sleeps"),
        ("â\x80\x9cschÃ¶nâ\x80\x9d", '"schön"'),
        ("caf&amp;eacute; &lt;3", "café <3"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("ＦＵＬＬ　ｗｉｄｔｈ", "full width"),
        ("!<END_of_text>", "!< end_of_text>"),
        ("a<end_of_text>", "a<end_of_text>"),
        ("", ""),
    ],
)
def test_texts_are_cleaned_as_documented(text: str, wanted: str) -> None:
    assert clean(text) == wanted


def merges(vocabulary: Path) -> list[str]:
    lines = gzip.decompress((vocabulary / VOCABULARY).read_bytes()).decode().split("\n")
    return lines[1 : 1 + 48_894]


def other_layouts(folder: Path, merges: list[str]) -> Iterator[Path]:
    """The same merges as transformers keeps them: of old and of new tokenizer.json, and of merges.txt."""
    for name, written in (
        ("merges.txt", "\n".join(["#version: 0.2", *merges, ""])),
        ("tokenizer.json", json.dumps({"model": {"merges": merges}})),
        ("new/tokenizer.json", json.dumps({"model": {"merges": [merge.split() for merge in merges]}})),
    ):
        path = folder / name.replace("/", "-") / Path(name).name
        path.parent.mkdir()
        path.write_text(written, "utf-8")
        yield path.parent


@pytest.fixture
def _nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No package and no model of the hub has the list."""
    monkeypatch.setattr(clip_bpe, "find_spec", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def same(first: Tokenizer, second: Tokenizer) -> bool:
    second.no_truncation()  # which is a matter of the last text
    return first.to_str() == second.to_str()


@pytest.mark.usefixtures("_nowhere_else")
def test_the_list_is_read_as_transformers_keeps_it(tmp_path: Path, vocabulary: Path, tokenizer: Tokenizer) -> None:
    for folder in other_layouts(tmp_path, merges(vocabulary)):
        assert same(find_tokenizer(folder), tokenizer)


@pytest.mark.usefixtures("_nowhere_else")
def test_another_clip_of_the_hub_has_the_list(tmp_path: Path, vocabulary: Path, tokenizer: Tokenizer) -> None:
    snapshot = tmp_path / "hub" / "models--someone--clip" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "merges.txt").write_text("\n".join(["#version: 0.2", *merges(vocabulary)]), "utf-8")
    other = tmp_path / "hub" / "models--another--model" / "snapshots" / "0123"
    other.mkdir(parents=True)
    (other / "merges.txt").write_text("#version: 0.2\na b\n")
    assert same(find_tokenizer(tmp_path), tokenizer)


@pytest.mark.usefixtures("_nowhere_else")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nothing", b""),
        ("merges.txt", b"#version: 0.2\ni n\nt h\n"),
        ("merges.txt", b"\xff\xfe"),
        ("tokenizer.json", b'{"model": {"vocab": {}}}'),
        ("tokenizer.json", b"[1, 2"),
        ("tokenizer.json", b"[1, 2]"),
        ("tokenizer.json", b'{"model": {"merges": [[1, 2], null]}}'),
        (VOCABULARY, b"\x1f\x8b\x08\x00cut"),
        (VOCABULARY, b"no gzip at all"),
        (VOCABULARY, b""),
    ],
)
def test_without_the_whole_list_there_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=VOCABULARY) as caught:
        find_tokenizer(tmp_path)
    assert (caught.value.hints, caught.value.facts) == (("pull",), {"model": "openai"})


@pytest.mark.usefixtures("_nowhere_else")
def test_a_list_that_was_cut_or_changed_is_not_taken(tmp_path: Path, vocabulary: Path) -> None:
    whole = (vocabulary / VOCABULARY).read_bytes()
    (tmp_path / VOCABULARY).write_bytes(whole[:100_000])
    with pytest.raises(ModelError):
        find_tokenizer(tmp_path)
    changed = merges(vocabulary)
    changed[100], changed[101] = changed[101], changed[100]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *changed]), "utf-8")
    with pytest.raises(ModelError):
        find_tokenizer(tmp_path)
    (tmp_path / VOCABULARY).write_bytes(whole)
    assert find_tokenizer(tmp_path).get_vocab_size() == clip_bpe.TOKENS


def test_a_package_that_has_the_list_is_not_imported(tmp_path: Path, vocabulary: Path) -> None:
    package = tmp_path / "packages" / "open_clip"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError")
    shutil.copy(vocabulary / VOCABULARY, package)
    code = (
        "import sys; from pathlib import Path; from clipsearch.models.disk.clip_bpe import find_tokenizer;"
        f"sys.path.insert(0, {str(package.parent)!r}); print(find_tokenizer(Path('.')).encode('a dog').ids)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == [49406, 320, 1929, 49407]


def test_sentences_have_what_the_tests_are_about() -> None:
    kinds = {unicodedata.category(character) for text in sentences() for character in text}
    assert {"Lu", "Ll", "Lo", "Lm", "Mn", "Nd", "No", "Nl", "Po", "So", "Sc", "Cc", "Cf", "Zs"} <= kinds
