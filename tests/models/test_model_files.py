"""Names of models and what lies in their folders: what is taken, what is refused and how that is said."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import PICTUREBOOK, paint
from safetensors.numpy import load_file, save_file
from tiny import Watcher

from clipsearch.api import IndexingModel, load_model
from clipsearch.errors import ModelError, ModelMismatchError
from clipsearch.index.reading import Store
from clipsearch.index.updating import update
from clipsearch.models.disk.catalog import ENTRIES, OPEN_CLIP, ORIGINALS
from clipsearch.models.disk.files import FAMILIES, find_local, fingerprint, locate, verify
from clipsearch.models.disk.integrity import read_header
from clipsearch.models.disk.names import canonical, repository_of
from clipsearch.models.encoder_options import FOR_QUERIES
from clipsearch.models.in_numpy.image_cache import image_tower_folder
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.output.hints import with_hints

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
SMALL = "somebody/small-clip"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this process."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def put(cache: Path, repository: str, folder: Path, commit: str, *refs: str) -> Path:
    """Have a model in the hub's cache, as a plain copy; the snapshot."""
    storage = cache / f"models--{repository.replace('/', '--')}"
    for ref in refs:
        (storage / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (storage / "refs" / ref).write_text(commit)
    return Path(shutil.copytree(folder, storage / "snapshots" / commit))


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("openai", "openai"),
        ("openai/clip-vit-base-patch32", "openai"),
        ("hf-hub:openai/clip-vit-base-patch32", "openai"),
        ("openai@v1.0", "openai@v1.0"),
        (f"hf-hub:openai/clip-vit-base-patch32@{COMMIT}", f"openai@{COMMIT}"),
        ("openai@refs/pr/15", "openai@refs/pr/15"),
        ("ViT-B-32/laion2b_s34b_b79k", "laion"),
        ("vit-b-32/LAION2B-s34b-b79k@main", "laion@main"),
        ("ViT-L-14/openai", "openai-l14"),
        ("ViT-H-14/laion2b_s32b_b79k", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        ("somebody/small-clip", "somebody/small-clip"),
        ("picturebook", "picturebook"),
    ],
)
def test_a_model_has_one_name(name: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert canonical(name) == wanted
    assert canonical(canonical(name)) == wanted


def test_all_names_of_the_catalogue_and_of_open_clip_lead_to_repositories() -> None:
    for entry in ENTRIES:
        assert repository_of(entry.name) == entry.repository
    for name, repository in OPEN_CLIP.items():
        assert repository_of(name) == repository_of(name.upper().replace("_", "-")) == repository


def test_a_folder_beats_a_repository_but_no_short_name(
    tmp_path: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("openai", "mine/clip", "clip@v2"):
        shutil.copytree(small_clip, tmp_path / name)
    assert canonical("openai") == "openai"
    assert canonical("./openai") == str(tmp_path / "openai")
    assert canonical("mine/clip") == str(tmp_path / "mine" / "clip")
    assert canonical("clip@v2") == str(tmp_path / "clip@v2")
    assert locate("clip@v2").folder == Path("clip@v2").resolve()


@pytest.mark.parametrize("name", [*ORIGINALS, "./downloads/vit-b-32.PT", "ViT-L/14@336px", "ViT-B/32", "RN50x4"])
def test_openai_s_archives_are_not_loaded_and_the_name_to_use_is_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "vit-b-32.PT").write_bytes(b"PK")
    with pytest.raises(ModelError, match="TorchScript") as caught:
        locate(name)
    wanted = {"vit-b-32": "openai", "336": "openai-l14-336", "rn": "reads"}  # the last word: none that clipsearch reads
    for part, last in wanted.items():
        if part in name.lower():
            assert str(caught.value).split()[-1] == f"{last}."


def test_an_archive_under_another_name_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/code/__torch__/model.py", "")
    with pytest.raises(ModelError, match=r"weights\.pt .*TorchScript.* openai, openai-b16,"):
        locate(str(path))
    path.write_bytes(b"anything else")
    with pytest.raises(ModelError, match=r"weights\.pt is a file"):
        locate(str(path))


def test_what_has_no_revisions(small_clip: Path) -> None:
    for name in ("picturebook@main", f"{small_clip}@main"):
        with pytest.raises(ModelError, match=f"revisions.* {name.removesuffix('@main')}$"):
            locate(name)


# -- revisions ---------------------------------------------------------------------------------------------------


def test_revisions_are_found_in_the_cache_without_the_hub(cache: Path, small_clip: Path) -> None:
    old = put(cache, SMALL, small_clip, COMMIT, "v1", "refs/pr/3")
    new = put(cache, SMALL, small_clip, OTHER, "main")
    assert locate(SMALL).folder == new
    for revision in ("v1", "refs/pr/3", COMMIT, COMMIT[:7]):
        files = locate(f"{SMALL}@{revision}")
        assert (files.folder, files.revision, files.name) == (old, COMMIT, f"{SMALL}@{revision}")
    assert locate(SMALL, revision=COMMIT).folder == old
    assert locate(SMALL, revision="a" * 40).folder == new  # it is not here, and what is here may be the same
    with pytest.raises(ModelError, match=f"'{SMALL}@v2' .*HF_HUB_OFFLINE"):
        locate(f"{SMALL}@v2")


@pytest.mark.parametrize("ref", ["", "no hash", "../../..", "a" * 40])
def test_a_broken_ref_is_no_model_on_the_disk(cache: Path, small_clip: Path, ref: str) -> None:
    put(cache, SMALL, small_clip, COMMIT, "main")
    (cache / "models--somebody--small-clip" / "refs" / "main").write_text(ref)
    assert find_local(SMALL) is None


def test_an_ambiguous_commit_is_none(cache: Path, small_clip: Path) -> None:
    put(cache, SMALL, small_clip, COMMIT)
    put(cache, SMALL, small_clip, COMMIT[:10] + OTHER[:30])
    assert find_local(f"{SMALL}@{COMMIT[:10]}") is None
    assert find_local(f"{SMALL}@{COMMIT[:11]}") is not None


def test_an_interrupted_download_is_said_to_be_one(cache: Path, small_clip: Path) -> None:
    snapshot = put(cache, SMALL, small_clip, COMMIT, "main")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE") as caught:
        locate(SMALL)
    assert "interrupted" not in str(caught.value)
    (snapshot.parent.parent / "blobs").mkdir()
    (snapshot.parent.parent / "blobs" / "abc.incomplete").write_bytes(b"half")
    with pytest.raises(ModelError, match="interrupted") as caught:
        locate(SMALL)
    for way in (f"clipsearch models pull {SMALL}", "--model PATH", "--model picturebook"):
        assert way in with_hints(caught.value)


def test_an_index_takes_every_name_of_its_model_and_keeps_to_its_revision(
    cache: Path, tmp_path: Path, small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(cache, SMALL, small_clip, COMMIT, "main")
    paint(tmp_path / "p" / "a.png", "red")
    folder, roots = tmp_path / ".clipsearch", [tmp_path / "p"]
    made = update(folder, roots, IndexingModel(SMALL, options=FOR_QUERIES), progress=Watcher())
    assert made.embedded == 1
    # The branch moves on to another model.
    newer = put(cache, SMALL, small_clip, OTHER, "main")
    (newer / "config.json").write_text((newer / "config.json").read_text() + "\n")
    assert fingerprint(newer) != fingerprint(small_clip)
    copy = shutil.copytree(small_clip, tmp_path / "copy")
    for name in (SMALL, f"hf-hub:{SMALL}", f"{SMALL}@{COMMIT}", f"{SMALL}@{COMMIT[:8]}", str(copy)):
        with load_model(name) as embedder:
            assert embedder.uses_index, name
        model = IndexingModel(name, options=FOR_QUERIES)
        assert update(folder, roots, model).images == 1
        record = model.load(1).record
        assert record.fingerprint == fingerprint(small_clip), name
    for name in (f"{SMALL}@{OTHER}", "picturebook"):
        with load_model(name) as embedder:
            assert not embedder.uses_index
    with pytest.raises(ModelMismatchError, match=f"revision.* {SMALL}") as refused:
        update(folder, roots, IndexingModel(f"{SMALL}@{OTHER}"))
    assert f"--model {SMALL}@{COMMIT[:12]}" in with_hints(refused.value)
    with load_model() as embedder:
        paint(tmp_path / "new.png", "blue")
        assert embedder.image((tmp_path / "new.png").read_bytes(), b"new.png").shape == (32,)
    # The old revision goes, too: what is here is another model, and where the old one is to be had is said.
    shutil.rmtree(newer.parent / COMMIT)
    with load_model() as embedder:  # by the tower that was kept of the old one
        assert embedder.image((tmp_path / "new.png").read_bytes(), b"new.png").shape == (32,)
    with closing(Store.open(folder)) as store:
        known = store.model()
    assert known is not None
    shutil.rmtree(image_tower_folder(known.fingerprint))
    with load_model() as embedder, pytest.raises(ModelMismatchError) as refused:
        embedder.image((tmp_path / "new.png").read_bytes(), b"new.png")
    assert f"models pull {SMALL}@{COMMIT[:12]}" in with_hints(refused.value)
    assert (known.name, known.revision) == (SMALL, COMMIT)


# -- what lies in a folder ---------------------------------------------------------------------------------------


def spoilt(small_clip: Path, tmp_path: Path, spoil: Callable[[Path], object]) -> str:
    """What is said of a spoilt copy of a model."""
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        locate(str(folder))
    return str(caught.value)


def _cut(path: Path, by: int = 100) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def _shards(folder: Path) -> None:
    """As transformers writes large models."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for part, some in parts.items():
        save_file({name: weights[name] for name in some}, folder / part)
    where = {name: part for part, some in parts.items() for name in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "model.safetensors").unlink()


def _lose_a_shard(folder: Path) -> None:
    _shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def _lead_outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret"}}')


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 605157884\n"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: _cut(f / "model.safetensors"), "model.safetensors .*bytes"),
        (lambda f: _cut(f / "model.safetensors", 10**5), "model.safetensors .*bytes"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors .*empty"),
        (lambda f: (f / "model.safetensors").write_bytes(b"<!DOCTYPE html> go away"), "no safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x00\x01\0\0\0\0\0\0{}"), "cut short"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0[]"), "no safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}"), "no tensors"),
        (lambda f: (f / "model.safetensors").write_text(LFS), "model.safetensors .*git lfs pull"),
        (lambda f: (f / "tokenizer.json").write_text(LFS), "tokenizer.json .*git lfs pull"),
        (lambda f: (f / "config.json").write_bytes(b""), "config.json .*empty"),
        (lambda f: (f / "config.json").write_text("[1]"), "config.json .*object"),
        (lambda f: (f / "config.json").write_text("[" * 10**5), "config.json .*recursion"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json .*column"),
        (lambda f: (f / "preprocessor_config.json").write_bytes(b"\xff\xfe"), "preprocessor_config.json .*codec"),
        (_lose_a_shard, "model-00002-of-00002.safetensors .*missing"),
        (_lead_outside, "model.safetensors.index.json"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "type bert.* siglip2"),
        (lambda f: (f / "config.json").write_text("{}"), "type None"),
    ],
)
def test_files_that_are_not_whole(small_clip: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    message = spoilt(small_clip, tmp_path, spoil)
    assert re.search(said, message)
    assert str(tmp_path / "clip") in message


def test_the_way_out_fits_where_the_files_lie(cache: Path, small_clip: Path) -> None:
    snapshot = put(cache, SMALL, small_clip, COMMIT, "main")
    _cut(snapshot / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        locate(SMALL)
    assert with_hints(caught.value).endswith(f"clipsearch models pull {SMALL}")
    with pytest.raises(ModelError, match=r"Copy .*folder") as caught:
        locate(str(shutil.copytree(snapshot, cache / "copy")))
    assert caught.value.hints == ()


def test_weights_in_parts(small_clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    _shards(folder)
    files = locate(str(folder))
    assert [check.name for check in verify(files)][-2:] == [
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    ]
    _cut(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelError, match=r"model-00001-of-00002\.safetensors"):
        locate(str(folder))


def test_open_clip_s_pickles_are_named(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"open_clip_model\.safetensors .*open_clip_pytorch_model\.bin .*pickle"):
        locate(str(tmp_path))


@pytest.mark.parametrize("tokenizer", ["spiece.model", "vocab.txt", "sentencepiece.bpe.model"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_and_their_tokenizers(tmp_path: Path, family: str, tokenizer: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    save_file({"logit_scale": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"tokenizer\.json .*vocab\.json"):
        locate(str(tmp_path))
    (tmp_path / tokenizer).write_bytes(b"pieces")
    assert locate(str(tmp_path)).layout == "transformers"
    before = fingerprint(tmp_path)
    (tmp_path / tokenizer).write_bytes(b"others")
    assert fingerprint(tmp_path) != before
    (tmp_path / tokenizer).write_bytes(b"")
    with pytest.raises(ModelError, match=f"{tokenizer} .*empty"):
        locate(str(tmp_path))


def test_all_families_are_known_to_transformers() -> None:
    from transformers import AutoConfig

    for family in FAMILIES:
        assert AutoConfig.for_model(family).model_type == family


def test_headers_tell_dtypes_shapes_and_lengths() -> None:
    path = PICTUREBOOK / "model.safetensors"
    header = read_header(path)
    real = load_file(path)
    assert {name: tensor.shape for name, tensor in header.items()} == {
        name: array.shape for name, array in real.items()
    }
    assert {tensor.dtype for tensor in header.values()} == {"F16"}
    assert max(tensor.end for tensor in header.values()) == path.stat().st_size


# -- code of others ----------------------------------------------------------------------------------------------


class _Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.write_text, (self.mark, "it ran"))


@pytest.mark.parametrize("form", ["zip", "bare"])
def test_a_hostile_pickle_is_refused_and_does_not_run(small_clip: Path, tmp_path: Path, form: str) -> None:
    import torch

    folder, mark = Path(shutil.copytree(small_clip, tmp_path / "clip")), tmp_path / "mark"
    weights = {"logit_scale": torch.ones(()), "payload": _Payload(mark)}
    if form == "zip":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Payload(mark)))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=re.escape(str(folder))) as caught:
        Encoder(locate(str(folder)), "cpu")
    assert "weights_only" not in str(caught.value)  # torch's own advice is to load it all the same
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Payload(mark)))  # noqa: S301  (it would have worked)
    assert mark.exists()


def test_code_that_comes_with_a_model_is_not_run(small_clip: Path, tmp_path: Path) -> None:
    folder, mark = Path(shutil.copytree(small_clip, tmp_path / "clip")), tmp_path / "mark"
    for name, part in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        config = json.loads((folder / name).read_text())
        own = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoTokenizer": ["own.Tokenizer", None]}
        (folder / name).write_text(json.dumps(config | {"auto_map": own if part == "AutoModel" else {part: own[part]}}))
    (folder / "own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nclass Config: pass\nModel = Tokenizer = Config\n"
    )
    encoder = Encoder(locate(str(folder)), "cpu")
    assert encoder.encode_texts(["a dog"]).shape == (1, 32)
    assert not mark.exists()
