"""The values that CLIP's own code and weights are known to give. Those of weights run wherever the weights are."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Run

from clipsearch.models.disk.clip_bpe import VOCABULARY, find_tokenizer
from clipsearch.models.disk.golden_values import KNOWN, KnownImage
from clipsearch.models.in_numpy.text_tower import tokenize

GOLDENS = REPOSITORY.parent / "shared" / "goldens"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
HUB = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or _CACHE / "huggingface") / "hub")
"""The user's own, looked up before tests get a home of their own."""


@pytest.fixture(scope="module")
def goldens() -> dict[str, Any]:
    if not GOLDENS.is_dir():
        pytest.skip("needs the reference material beside the project (shared/goldens)")
    values: dict[str, Any] = json.loads((GOLDENS / "goldens.json").read_text("utf-8"))
    return values


def test_explain_tokens_are_clips(goldens: dict[str, Any], tmp_path: Path) -> None:
    shutil.copy(GOLDENS / VOCABULARY, tmp_path)
    tokenizer = find_tokenizer(tmp_path)
    assert goldens["tokenizer"]
    for golden in goldens["tokenizer"]:
        assert tokenize(tokenizer, golden["text"], 77, cleaned=True).ids == golden["ids"]


def test_known_values_are_the_published_ones(goldens: dict[str, Any]) -> None:
    def name(of: str | KnownImage) -> str:
        return of if isinstance(of, str) else of.name

    known = KNOWN["openai"]
    assert [{"text": one.text, "ids": list(one.ids)} for one in known.tokens] == goldens["tokenizer"]
    features = {name(one.of): one for one in known.features}
    for golden in (goldens["image_embedding"], goldens["text_embedding"]):
        ours = features.pop(golden.get("image") or golden["text"])
        assert ours.first == pytest.approx(golden["first_5"], abs=1e-8)
        assert ours.total == pytest.approx(golden["sum"], abs=1e-8)
    assert not features
    logits = {one.image.name: one for one in known.logits}
    for golden in goldens["similarity"]:
        pair = logits.pop(golden["image"])
        assert list(pair.texts) == golden["texts"]
        assert pair.logits == pytest.approx(golden["logits"], abs=1e-8)
    assert not logits


def test_openais_weights_give_the_known_values(goldens: dict[str, Any], run: Run, tmp_path: Path) -> None:
    if not (HUB / "models--openai--clip-vit-base-patch32" / "snapshots").is_dir():
        pytest.skip("needs openai's weights: clipsearch models pull openai")
    done = run(
        "models", "check", "openai", "--pictures", GOLDENS, "--json", cwd=tmp_path, env={"HF_HUB_CACHE": str(HUB)}
    )
    found = json.loads(done.stdout)
    assert [row for row in found if row["result"] == "differs"] == []
    assert {row["check"] for row in found if row["result"] == "not run"} <= {"files"}
    # The probabilities, which follow from logits and a softmax.
    for golden in goldens["similarity"]:
        arguments = ["--model", "openai", "--precision", "fp32", "--probs", "--json", GOLDENS / golden["image"]]
        texts = [argument for text in golden["texts"] for argument in ("--text", text)]
        scored = run("score", *arguments, *texts, cwd=tmp_path, env={"HF_HUB_CACHE": str(HUB)})
        probabilities = [row["probability"] for row in json.loads(scored.stdout)]
        assert probabilities == pytest.approx(golden["probabilities"], abs=0.001)
