"""Benchmark of every family of models at real size: seconds and memory of index and query, and a comparison of vectors.

Each model has the published architecture with random weights, in the format in which it is published. Its tokenizer has
as many tokens as the published one: letters and what can be put together from them, so that plain English becomes short
pieces, with only the most frequent ones for texts in other scripts. One model after the other is made, measured and
deleted:

- `clipsearch index` on 64 of the samples, once, from nothing: the whole process, with the text tower that it prepares;
- a cold `clipsearch query`, in turns with the first model's, which tells a slow model from a slow minute;
- two pictures and three texts in float32 without shortcuts: how far components of our unit vectors are from those of
  transformers' own towers, processor and tokenizer, and of the text tower that queries use.

Memory is that of `bench_common.weigh`: the peak counts pages of memory-mapped files that were touched, such as weights;
memory of its own does not. Making and comparing take processes of their own, so that nothing is left of them. Where the
peak of a query is below the size of its text tower, whose layers are all needed, the table of token vectors was not
read whole. Run it with:

    python scripts/bench_families.py
    python scripts/bench_families.py --only altclip siglip2-so400m

The largest takes 8 GB on the disk (TMPDIR names another folder), text tower included, and 7 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import string
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, product
from pathlib import Path
from typing import Any, NamedTuple

import bench_common as common

SAMPLES = Path(__file__).resolve().parent.parent / "sample-images"
PICTURES = 64
TEXT, K = "a dog is sleeping", 3
COMPARED = (TEXT, "two cats on a red sofa", "a photo of a boat at sea in the evening")
REFERENCE = "clip-b32"
"""The model whose query every other is timed beside."""
_SEED = 0
_LEAST_SPREAD = 1e-3
"""Vectors of different pictures differ by more in some component, or else that they agree would say nothing."""
_NOISE = 0.02
_CLIP_TOKENS = 49_408
_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
"""The most frequent first."""
_SPACE = "▁"
_END_OF_WORD = "</w>"


class Model(NamedTuple):
    """One model to measure."""

    like: str
    """The repository whose sizes it has."""
    make: Callable[[Path], Any]
    """Leaves it in a folder, and returns transformers' model."""
    large: bool = False


def main() -> None:
    """Make, measure and delete one model after the other; report."""
    parser = argparse.ArgumentParser(description="Index and query with every family of models at real size.")
    parser.add_argument("--only", nargs="+", choices=MODELS, metavar="NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--large", action="store_true", help="also the two that take up to 8 GB on the disk")
    parser.add_argument("--runs", type=int, default=5, help="measured queries, after one to warm up (%(default)s)")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)  # one model, in a process of its own
    parser.add_argument("--compare", nargs="+", type=Path, help=argparse.SUPPRESS)  # a model on pictures, likewise
    given = parser.parse_args()
    if given.make:
        print(json.dumps(make(given.make[0], Path(given.make[1]))))
        return
    if given.compare:
        print(json.dumps(compare(given.compare[0], given.compare[1:])))
        return
    with tempfile.TemporaryDirectory(prefix="bench-families-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        asked = given.only or [name for name, model in MODELS.items() if given.large or not model.large]
        found = measure([name for name in MODELS if name in asked], given.runs, work)
    common.finish(
        benchmark="families",
        unit="seconds; 10**6 bytes; components of unit vectors for differences",
        runs=given.runs,
        pictures=PICTURES,
        text=TEXT,
        models=found,
    )


# -- measuring -----------------------------------------------------------------------------------------------


def measure(names: Sequence[str], runs: int, work: Path) -> list[dict[str, Any]]:
    """The figures of each model; those that cannot be made are left out, and it is said why."""
    pictures = some_samples(work / "pictures")
    reference: common.Process | None = None
    found = []
    show_header()
    for name in names:
        try:
            about = json.loads(common.run([sys.executable, __file__, "--make", name, str(work / name)], work)[1])
            if "left_out" in about:
                print(f"{name}: left out. {about['left_out']}", flush=True)
                continue
            folder = work / f"{name}-index"
            folder.mkdir()
            figures = {"model": name, "like": MODELS[name].like, **about}
            figures |= indexed(work / name, folder, pictures)
            figures |= queried(folder, reference, runs)
            figures["table_left_on_disk"] = table_left_on_disk(figures)
            command = [sys.executable, __file__, "--compare", str(work / name), *map(str, pictures_compared(pictures))]
            figures["difference"] = json.loads(common.run(command, work)[1])
        finally:
            shutil.rmtree(work / name, ignore_errors=True)
        if name == REFERENCE:
            reference = query_process(folder)  # needs the index and the text tower, which stay, not the weights
        else:
            shutil.rmtree(tower_folder(folder), ignore_errors=True)
        show_figures(figures)
        found.append(figures)
    return found


def some_samples(folder: Path) -> Path:
    """A folder with `PICTURES` of the samples, from all over their folders."""
    everything = sorted(path for path in SAMPLES.rglob("*") if path.suffix in {".jpg", ".png", ".webp"})
    folder.mkdir()
    for number in range(PICTURES):
        path = everything[number * len(everything) // PICTURES]
        shutil.copy(path, folder / f"{number:02}{path.suffix}")
    return folder


def pictures_compared(folder: Path) -> list[Path]:
    """The first and the last, which show different things."""
    pictures = sorted(folder.iterdir())
    return [pictures[0], pictures[-1]]


def indexed(model: Path, folder: Path, pictures: Path) -> dict[str, Any]:
    """Measure `index`: time, memory, device, and the size of what it writes."""
    command = [common.clipsearch_command(), "index", str(pictures), "--model", str(model), "--json"]
    weight = common.weigh(common.Process(command, folder))
    status = state(folder)
    if status["images"] != PICTURES:
        sys.exit(f"{model.name}: of {PICTURES} pictures {status['images']} were indexed.")
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    tower = {path.name: path.stat().st_size / common.MEGABYTE for path in tower_folder(folder).glob("*")}
    return {
        "model_mb": round(weights / common.MEGABYTE, 1),
        "tower_mb": round(sum(tower.values()), 1) if tower else None,
        "tower_weights_mb": round(tower["text_tower.safetensors"], 1) if tower else None,
        "index": weight.shown() | {name: status[name] for name in ("device", "precision")},
    }


def state(folder: Path) -> dict[str, Any]:
    """Return the output of `clipsearch status` for the index in a folder."""
    status: dict[str, Any] = json.loads(common.run([common.clipsearch_command(), "status", "--json"], folder)[1])
    return status


def tower_folder(folder: Path) -> Path:
    """The cache's folder for the text tower of an index's model."""
    from clipsearch.models.in_numpy import tower_cache

    return tower_cache.tower_folder(state(folder)["fingerprint"])


def query_process(folder: Path) -> common.Process:
    """A query on the index in a folder."""
    return common.Process([common.clipsearch_command(), "query", TEXT, "-k", str(K)], folder)


def queried(folder: Path, reference: common.Process | None, runs: int) -> dict[str, Any]:
    """Measure a cold query, also as a multiple of the reference's time, and list its heavy imports."""
    process = query_process(folder)
    cases = {"reference": partial(common.seconds, reference)} if reference else {}
    times = common.interleaved({**cases, "query": partial(common.seconds, process)}, runs)
    ratios = common.ratios(times["query"], times["reference"]) if reference else None
    weight = common.weigh(process)
    heavy = common.heavy_imports(process.command[1:], folder)
    return {
        "query": common.summary(times["query"]),
        f"times_{REFERENCE}": common.summary(ratios) if ratios else None,
        "query_memory": weight.shown(),
        "text_path": f"imports {', '.join(heavy)}" if heavy else "NumPy tower",
    }


def table_left_on_disk(figures: dict[str, Any]) -> bool | None:
    """Whether a query's peak is below the size of the text tower's weights; None if there is no such tower.

    Since all layers are needed, it is the table of tokens of which only a part was read then.
    """
    weights, peak = figures["tower_weights_mb"], figures["query_memory"]["peak_mb"]
    return None if weights is None or peak is None else bool(peak < weights)


def compare(folder: Path, paths: Sequence[Path]) -> dict[str, float]:
    """Largest differences between components of unit vectors: ours and transformers', in float32, without shortcuts."""
    import numpy as np
    from PIL import Image

    from clipsearch.models.disk.files import locate
    from clipsearch.models.in_numpy import tower_cache
    from clipsearch.models.in_torch.encoder import Encoder
    from clipsearch.models.in_torch.reference import Plain

    pictures = [Image.open(path).convert("RGB") for path in paths]
    # 1. Transformers', and then nothing of it is kept but the vectors.
    plain = Plain(locate(str(folder)))
    images, texts = plain.image_features(pictures), plain.text_features(COMPARED)
    images, texts = (found / np.linalg.norm(found, axis=1, keepdims=True) for found in (images, texts))
    del plain
    for what, vectors in (("pictures", images), ("texts", texts)):
        if np.ptp(vectors, axis=0).max() < _LEAST_SPREAD:
            sys.exit(f"{folder.name}: the vectors of all {what} are the same.")
    # 2. Ours.
    encoder = Encoder(locate(str(folder)), "cpu", "fp32", exact=True)
    found = {
        "images": (encoder.encode_images([encoder.preprocessing(picture) for picture in pictures]), images),
        "texts": (encoder.encode_texts(COMPARED), texts),
    }
    if tower := tower_cache.load(encoder.fingerprint):
        found["texts_of_queries"] = (tower.encode_texts(COMPARED), texts)
    return {name: float(np.abs(ours - theirs).max()) for name, (ours, theirs) in found.items()}


# -- showing -------------------------------------------------------------------------------------------------

_COLUMNS = (
    *(("model", 18), ("file MB", 8), ("tower MB", 9), ("index s", 8), ("peak MB", 8), ("own MB", 7), ("on", 9)),
    *(("query s", 8), ("x CLIP", 7), ("peak MB", 8), ("own MB", 7), ("table MB", 9), ("differs by", 11)),
)


def show_header() -> None:
    """The table's first line."""
    print(" ".join(f"{name:>{width}}" for name, width in _COLUMNS) + "  text path", flush=True)


def show_figures(figures: dict[str, Any]) -> None:
    """One model's line."""
    index, query, memory = figures["index"], figures["query"], figures["query_memory"]
    ratio = figures[f"times_{REFERENCE}"]
    cells = (
        figures["model"],
        _number(figures["model_mb"], 0),
        _number(figures["tower_mb"], 0),
        *(_number(index["seconds"], 1), _number(index["peak_mb"], 0), _number(index["own_mb"], 0)),
        f"{index['device']} {index['precision']}",
        *(_number(query["median"], 3), _number(ratio and ratio["median"], 2)),
        *(_number(memory["peak_mb"], 0), _number(memory["own_mb"], 0), _number(figures["table_mb"], 0)),
        f"{max(figures['difference'].values()):.1e}",
    )
    line = " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    note = {True: ", table not read whole", False: ", table perhaps read whole", None: ""}[
        figures["table_left_on_disk"]
    ]
    print(f"{line}  {figures['text_path']}{note}", flush=True)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


# -- making models -------------------------------------------------------------------------------------------


def make(name: str, folder: Path) -> dict[str, Any]:
    """Make a model; its size in millions of parameters, and that of its table of tokens."""
    import torch

    from clipsearch.errors import ModelError

    torch.manual_seed(_SEED)
    folder.mkdir(parents=True)
    try:
        model = MODELS[name].make(folder)
    except ModelError as error:
        return {"left_out": str(error)}
    text = model.config.text_config
    return {
        "parameters_millions": round(sum(weights.numel() for weights in model.parameters()) / 1e6, 1),
        "tokens": text.vocab_size,
        "table_mb": round(text.vocab_size * text.hidden_size * 4 / common.MEGABYTE, 1),
    }


def saved(model: Any, folder: Path, pictures: dict[str, Any]) -> Any:  # noqa: ANN401  (a model of transformers)
    """`model`, saved with its preprocessing. Biases and norms are random too; fresh models have zeros and ones."""
    shaken(model)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures), "utf-8")
    return model


def shaken(model: Any) -> None:  # noqa: ANN401  (a model of transformers)
    """Make a model's biases and norms random."""
    import torch

    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 1:
                weights.add_(torch.randn_like(weights) * _NOISE)


def vit(patch: int, side: int, width: int = 768, layers: int = 12) -> dict[str, Any]:
    """A vision transformer's sizes; those of ViT-B unless others are given."""
    return transformer(width, layers) | {"patch_size": patch, "image_size": side}


def transformer(width: int, layers: int = 12, head: int = 64) -> dict[str, Any]:
    """Sizes of a tower as most have them; `head` is the width of one."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // head,
    }


def fixed(side: int, kind: str, resample: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401  (JSON)
    """Preprocessing without a crop; with SigLIP's normalisation unless another is given."""
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": resample,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        **more,
    }


def clip(folder: Path, side: int, vision: dict[str, Any], text_width: int, activation: str) -> Any:  # noqa: ANN401
    """CLIP; D is the width of the text tower."""
    from transformers import CLIPConfig, CLIPModel

    clip_words(folder)
    text = transformer(text_width) | OLD_ENDS | {"hidden_act": activation}
    config = CLIPConfig(text_config=text, vision_config=vision | {"hidden_act": activation}, projection_dim=text_width)
    return saved(CLIPModel(config), folder, common.clip_preprocessing(side))


OLD_ENDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
"""End token in the configurations of CLIP and early similar models, which transformers reads as: the largest id."""


def open_clip(folder: Path) -> Any:  # noqa: ANN401
    """A checkpoint of open_clip with the tokenizer that goes with it, whose merges have to be on this machine."""
    from safetensors.torch import save_file

    from clipsearch.models.disk import clip_bpe, open_clip
    from clipsearch.models.disk.files import locate
    from clipsearch.models.in_torch import families

    # 1. The tokenizer: CLIP's own, since no other is accepted.
    lists = Path(sys.prefix) / "reference" / "open_clip" / clip_bpe.VOCABULARY  # where tests have open_clip
    if lists.is_file():
        shutil.copy(lists, folder)
    clip_bpe.find_tokenizer(folder).save(str(folder / "tokenizer.json"))
    (folder / clip_bpe.VOCABULARY).unlink(missing_ok=True)
    # 2. Configuration and weights.
    config = {
        "model_cfg": {
            "embed_dim": 512,
            "vision_cfg": {"image_size": 256, "layers": 12, "width": 768, "patch_size": 32},
            "text_cfg": {"context_length": 77, "vocab_size": _CLIP_TOKENS, "width": 512, "heads": 8, "layers": 12},
        },
        "preprocess_cfg": {"interpolation": "bicubic", "resize_mode": "shortest"},
    }
    (folder / open_clip.CONFIG).write_text(json.dumps(config), "utf-8")
    save_file(open_clip_tensors(), folder / open_clip.WEIGHTS)
    return families.load(locate(str(folder)))


def open_clip_tensors() -> dict[str, Any]:
    """Random weights of open_clip's ViT-B-32-256, by open_clip's names."""
    import torch

    wide, narrow, dim = 768, 512, 512
    places = (256 // 32) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (wide,),
        "visual.conv1.weight": (wide, 3, 32, 32),
        "visual.positional_embedding": (places, wide),
        "visual.proj": (wide, dim),
        "token_embedding.weight": (_CLIP_TOKENS, narrow),
        "positional_embedding": (77, narrow),
        "text_projection": (narrow, dim),
    }
    norms = {"visual.ln_pre": wide, "visual.ln_post": wide, "ln_final": narrow}
    for layer in range(12):
        for tower, width in (("visual.", wide), ("", narrow)):
            block = f"{tower}transformer.resblocks.{layer}."
            norms |= {f"{block}ln_1": width, f"{block}ln_2": width}
            products = {
                "attn.in_proj_": (3 * width, width),
                "attn.out_proj.": (width, width),
                "mlp.c_fc.": (4 * width, width),
                "mlp.c_proj.": (width, 4 * width),
            }
            for name, shape in products.items():
                shapes |= {f"{block}{name}weight": shape, f"{block}{name}bias": shape[:1]}
    tensors = {name: torch.randn(shape) * _NOISE for name, shape in shapes.items()}
    for name, width in norms.items():
        tensors[f"{name}.weight"] = 1 + torch.randn(width) * _NOISE
        tensors[f"{name}.bias"] = torch.randn(width) * _NOISE
    return tensors | {"logit_scale": torch.tensor(math.log(100))}


def siglip(folder: Path) -> Any:  # noqa: ANN401
    """SigLIP with SentencePiece."""
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

    words = SiglipTokenizer(str(sentence_pieces(folder, 32_000)), model_max_length=64, model_input_names=["input_ids"])
    words.save_pretrained(folder)
    text = transformer(768) | {"vocab_size": 32_000, "projection_size": 768}
    config = SiglipConfig(text_config=text, vision_config=vit(16, 224))
    return saved(SiglipModel(config), folder, fixed(224, "SiglipImageProcessor", 3))


def siglip2(folder: Path, vision: dict[str, Any], sizes: dict[str, Any]) -> Any:  # noqa: ANN401
    """SigLIP 2 of one picture size, which is SigLIP with Gemma's vocabulary; `sizes` are those of the text tower."""
    from transformers import SiglipConfig, SiglipModel

    tokens = gemma_words(folder, model_input_names=["input_ids"])
    text = sizes | {"vocab_size": tokens, "projection_size": vision["hidden_size"]}
    config = SiglipConfig(text_config=text, vision_config=vision)
    return saved(SiglipModel(config), folder, fixed(vision["image_size"], "SiglipImageProcessor", 2))


def naflex(folder: Path) -> Any:  # noqa: ANN401
    """SigLIP 2 for pictures of any proportions."""
    from transformers import Siglip2Config, Siglip2Model

    text = transformer(768) | {"vocab_size": gemma_words(folder), "projection_size": 768}
    config = Siglip2Config(text_config=text, vision_config=transformer(768) | {"patch_size": 16, "num_patches": 256})
    pictures = fixed(0, "Siglip2ImageProcessor", 2, patch_size=16, max_num_patches=256)
    del pictures["size"]
    return saved(Siglip2Model(config), folder, pictures)


def clipseg(folder: Path) -> Any:  # noqa: ANN401
    """CLIPSeg's CLIP, whose pictures are larger than its positions: transformers interpolates these."""
    from transformers import CLIPSegConfig, CLIPSegModel

    clip_words(folder)
    text = transformer(512) | OLD_ENDS
    config = CLIPSegConfig(text_config=text, vision_config=vit(16, 224), projection_dim=512)
    normal = {name: common.clip_preprocessing(224)[name] for name in ("image_mean", "image_std")}
    return saved(CLIPSegModel(config), folder, fixed(352, "ViTImageProcessor", 2, **normal))


def metaclip_2(folder: Path) -> Any:  # noqa: ANN401
    """Meta CLIP 2, with XLM-V's vocabulary."""
    from transformers import MetaClip2Config, MetaClip2Model

    tokens = 901_629
    xlm_words(folder, tokens)
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    text = transformer(512) | ends | {"vocab_size": tokens, "hidden_act": "gelu"}
    config = MetaClip2Config(text_config=text, vision_config=vit(32, 224) | {"hidden_act": "gelu"}, projection_dim=512)
    square = {"height": 224, "width": 224}
    return saved(MetaClip2Model(config), folder, common.clip_preprocessing(224) | {"size": square})


def chinese_clip(folder: Path) -> Any:  # noqa: ANN401
    """Chinese-CLIP: BERT reads the texts."""
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    bert_words(folder, 21_128)
    text = transformer(768) | {"vocab_size": 21_128}
    config = ChineseCLIPConfig(text_config=text, vision_config=vit(16, 224), projection_dim=512)
    normal = {name: common.clip_preprocessing(224)[name] for name in ("image_mean", "image_std")}
    pictures = fixed(224, "ChineseCLIPImageProcessor", 3, do_center_crop=False, **normal)
    return saved(ChineseCLIPModel(config), folder, pictures)


def altclip(folder: Path) -> Any:  # noqa: ANN401
    """AltCLIP: XLM-R reads the texts."""
    from transformers import AltCLIPConfig, AltCLIPModel

    xlm_words(folder, 250_002)
    text = transformer(1024, 24) | {"vocab_size": 250_002, "max_position_embeddings": 514, "project_dim": 768}
    config = AltCLIPConfig(text_config=text, vision_config=vit(14, 224, 1024, 24), projection_dim=768)
    return saved(AltCLIPModel(config), folder, common.clip_preprocessing(224))


def groupvit(folder: Path) -> Any:  # noqa: ANN401
    """GroupViT, whose published sizes are transformers' own defaults."""
    from transformers import GroupViTConfig, GroupViTModel

    clip_words(folder)
    model = GroupViTModel(GroupViTConfig(text_config=OLD_ENDS))
    return saved(model, folder, common.clip_preprocessing(224))


def dual_encoder(folder: Path) -> Any:  # noqa: ANN401
    """A vision transformer and a BERT put together, both of the usual size."""
    from transformers import BertConfig, CLIPVisionConfig, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    bert_words(folder, 30_522)
    vision, text = CLIPVisionConfig(**vit(32, 224)), BertConfig(**transformer(768), vocab_size=30_522)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=512)
    return saved(VisionTextDualEncoderModel(config), folder, common.clip_preprocessing(224))


# -- making tokenizers ---------------------------------------------------------------------------------------


def combined(*, first: str = "") -> Iterator[str]:
    """Yield all strings of two letters, of three, and so on; `first` are further characters that may begin one."""
    length = 2
    while True:
        yield from map("".join, product(_LETTERS + first, *[_LETTERS] * (length - 1)))
        length += 1


def clip_words(folder: Path) -> None:
    """A byte-level tokenizer of CLIP's kind and size: each merge makes one token, within a word or at its end."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    bytes_as_letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [f"{letter}{_END_OF_WORD}" for letter in bytes_as_letters]
    pieces = ((piece[:-1], piece[-1] + end) for piece in combined() for end in ("", _END_OF_WORD))
    merges: Any = list(islice(pieces, _CLIP_TOKENS - 2 * len(ends) - 2))
    words = [*bytes_as_letters, *ends, *(a + b for a, b in merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77).save_pretrained(folder)


def gemma_words(folder: Path, **options: Any) -> int:  # noqa: ANN401
    """A tokenizer of SigLIP 2's kind and size; longer pieces come about in two ways, as Gemma's do. How many tokens."""
    from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

    tokens = 256_000
    known = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    known += [_SPACE, *_LETTERS]
    pieces = list(islice(combined(first=_SPACE), tokens - len(known)))
    merges: Any = [(piece[:-cut], piece[-cut:]) for piece in pieces for cut in (1, 2)[: len(piece) - 1]]
    tokenizer: Any = Siglip2Tokenizer(
        vocab={piece: number for number, piece in enumerate(chain(known, pieces))},
        merges=merges,
        model_max_length=64,
        padding_side="right",
        **options,
    )
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def unigrams(count: int) -> Iterator[tuple[str, float]]:
    """Make a number of pieces with scores that fall like the frequency of words (Zipf)."""
    single = f"{_SPACE}{_LETTERS}{_LETTERS.upper()}{string.digits}{string.punctuation}"
    for number, piece in enumerate(islice(chain(single, combined(first=_SPACE)), count)):
        yield piece, -5.0 - math.log(number + 1)


def sentence_pieces(folder: Path, count: int) -> Path:
    """Make a SentencePiece model of SigLIP's kind with a number of pieces."""
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

    made: Any = sentencepiece.ModelProto()  # type: ignore[attr-defined]
    control, unknown = 3, 2  # SentencePiece's numbers for kinds of pieces
    for piece, kind in (("<pad>", control), ("</s>", control), ("<unk>", unknown)):
        made.pieces.add(piece=piece, score=0.0, type=kind)
    for piece, score in unigrams(count - 3):
        made.pieces.add(piece=piece, score=score)
    training, normal = made.trainer_spec, made.normalizer_spec
    training.model_type, training.vocab_size = training.UNIGRAM, count
    training.pad_id, training.eos_id, training.unk_id, training.bos_id = 0, 1, 2, -1
    normal.name, normal.add_dummy_prefix, normal.remove_extra_whitespaces = "identity", True, True
    path = folder / "spiece.model"
    path.write_bytes(made.SerializeToString())
    return path


def xlm_words(folder: Path, count: int) -> None:
    """Make a tokenizer of XLM-R's kind with a number of tokens."""
    from transformers import XLMRobertaTokenizer

    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [*special, *unigrams(count - 5), ("<mask>", 0.0)]
    XLMRobertaTokenizer(vocab=words, model_max_length=512).save_pretrained(folder)


def bert_words(folder: Path, count: int) -> None:
    """Make a tokenizer of BERT's kind with a number of tokens, as a file with a token on each line."""
    letters = [*_LETTERS, *string.digits, *string.punctuation]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    pieces = (mark + piece for piece in combined() for mark in ("", "##"))
    words += islice(pieces, count - len(words))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), "utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


_SO400M = transformer(1152, 27, 72) | {"intermediate_size": 4304}

MODELS = {
    REFERENCE: Model(
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        partial(clip, side=224, vision=vit(32, 224), text_width=512, activation="gelu"),
    ),
    "clip-l14-336": Model(
        "openai/clip-vit-large-patch14-336",
        partial(clip, side=336, vision=vit(14, 336, 1024, 24), text_width=768, activation="quick_gelu"),
    ),
    "open-clip-b32-256": Model("laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K", open_clip),
    "siglip-b16": Model("google/siglip-base-patch16-224", siglip),
    "siglip2-b32-256": Model(
        "google/siglip2-base-patch32-256", partial(siglip2, vision=vit(32, 256), sizes=transformer(768))
    ),
    "siglip2-naflex": Model("google/siglip2-base-patch16-naflex", naflex),
    "siglip2-so400m": Model(
        "google/siglip2-so400m-patch14-384",
        partial(siglip2, vision=_SO400M | {"patch_size": 14, "image_size": 384}, sizes=_SO400M),
        large=True,
    ),
    "clipseg": Model("CIDAS/clipseg-rd64-refined", clipseg),
    "metaclip2-b32": Model("facebook/metaclip-2-worldwide-b32", metaclip_2),
    "chinese-clip-b16": Model("OFA-Sys/chinese-clip-vit-base-patch16", chinese_clip),
    "altclip": Model("BAAI/AltCLIP", altclip, large=True),
    "groupvit": Model("nvidia/groupvit-gcc-yfcc", groupvit),
    "dual-encoder": Model("openai/clip-vit-base-patch32 and google-bert/bert-base-uncased", dual_encoder),
}
"""Sizes as their configurations have them: transformers' documentation names the same repositories for its defaults.

Those of Meta CLIP 2 are from its authors' repository: facebookresearch/MetaCLIP, ViT-B-32-worldwide.json.
"""


if __name__ == "__main__":
    main()
