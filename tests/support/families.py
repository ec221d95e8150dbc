"""Small models of every family with random weights, and tokenizers of the kinds that these families have."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import PICTUREBOOK, SAMPLES
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPSegConfig,
    CLIPSegModel,
    CLIPVisionConfig,
    GroupViTConfig,
    GroupViTModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedModel,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    XLMRobertaTokenizer,
)
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

MEAN_STD = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
CLIP_PICTURES = MEAN_STD | {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 64},
    "crop_size": {"height": 64, "width": 64},
    "resample": 3,
}
FIXED_PICTURES = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_normalize": True,
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "size": {"height": 64, "width": 64},
}
VISION: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def corpus() -> list[str]:
    """Some sentences, mostly English."""
    with (SAMPLES / "captions.csv").open(encoding="utf-8", newline="") as file:
        captions = [caption for row in csv.reader(file) for caption in row]
    return [*captions, *["개가 자고 있다 고양이 바다", "собака спит на пляже", "un chien dort sur la plage"] * 20]


def sentence_pieces(folder: Path, *, end: int = 1) -> Path:
    """A SentencePiece model of the kind that SigLIP has, trained on `corpus`."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "corpus.txt"
    text.write_text("\n".join(corpus()), "utf-8")
    ids: dict[str, Any] = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} if end == 1 else {"pad_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "spiece"),
        vocab_size=400,
        character_coverage=1.0,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **ids,
    )
    text.unlink()
    (folder / "spiece.vocab").unlink()
    return folder / "spiece.model"


def save(model: PreTrainedModel, folder: Path, pictures: dict[str, Any]) -> Path:
    """Make all weights random, also those that fresh models have as zeros and ones, and save the model."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return folder


def siglip(folder: Path) -> Path:
    """SigLIP with SentencePiece."""
    from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

    tokenizer: Any = SiglipTokenizer(str(sentence_pieces(folder)), model_max_length=16, model_input_names=["input_ids"])
    tokenizer.save_pretrained(folder)
    text = TEXT | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 16, "projection_size": 64}
    config = SiglipConfig(text_config=text, vision_config=VISION)
    pictures = FIXED_PICTURES | {"image_processor_type": "SiglipImageProcessor", "resample": 3}
    return save(SiglipModel(config), folder, pictures)


def gemma_like(folder: Path, **options: Any) -> Any:  # noqa: ANN401  (a tokenizer of transformers)
    """A tokenizer of the kind that SigLIP 2 has: a byte-pair encoding over words that carry their spaces."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trained = Tokenizer(BPE(unk_token=special[3], fuse_unk=True, byte_fallback=True))
    trained.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trained.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    trained.train_from_iterator(corpus(), BpeTrainer(vocab_size=700, special_tokens=[*special, *raw]))
    tokenizer = Siglip2Tokenizer(tokenizer_object=trained, model_max_length=16, **{"padding_side": "right", **options})
    tokenizer.save_pretrained(folder)
    return tokenizer


def siglip2_fixed(folder: Path, **options: Any) -> Path:  # noqa: ANN401  (of the tokenizer)
    """SigLIP 2 of one picture size, which is SigLIP with another tokenizer."""
    tokenizer = gemma_like(folder, model_input_names=["input_ids"], **options)
    text = TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 64}
    config = SiglipConfig(text_config=text, vision_config=VISION)
    pictures = FIXED_PICTURES | {"image_processor_type": "SiglipImageProcessor", "resample": 2}
    return save(SiglipModel(config), folder, pictures)


def siglip2(folder: Path, **options: Any) -> Path:  # noqa: ANN401  (of the tokenizer)
    """SigLIP 2 for pictures of any proportions (NaFlex)."""
    tokenizer = gemma_like(folder, **options)
    text = TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 64}
    vision = {name: value for name, value in VISION.items() if name != "image_size"} | {"num_patches": 16}
    pictures = {name: value for name, value in FIXED_PICTURES.items() if name != "size"}
    pictures |= {
        "image_processor_type": "Siglip2ImageProcessor",
        "patch_size": 16,
        "max_num_patches": 16,
        "resample": 2,
    }
    return save(Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)), folder, pictures)


def picturebook_words(folder: Path) -> int:
    """Save picturebook's tokenizer, whose end token is 1; the number of its tokens."""
    tokenizer = AutoTokenizer.from_pretrained(PICTUREBOOK)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def like_clip(words: int) -> dict[str, Any]:
    """A text tower for picturebook's tokenizer."""
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return TEXT | ends | {"vocab_size": words, "max_position_embeddings": 24}


def clipseg(folder: Path) -> Path:
    """CLIPSeg's CLIP."""
    config = CLIPSegConfig(text_config=like_clip(picturebook_words(folder)), vision_config=VISION, projection_dim=32)
    pictures = FIXED_PICTURES | MEAN_STD | {"image_processor_type": "ViTImageProcessor", "resample": 2}
    return save(CLIPSegModel(config), folder, pictures)


def metaclip_2(folder: Path) -> Path:
    """Meta CLIP 2, with a SentencePiece tokenizer whose end token is 2."""
    words = xlm_roberta(folder)
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    text = TEXT | ends | {"vocab_size": words, "max_position_embeddings": 24}
    config = MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=32)
    return save(MetaClip2Model(config), folder, CLIP_PICTURES)


def xlm_roberta(folder: Path) -> int:
    """Save a small tokenizer of XLM-R's kind; the number of its tokens."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(sentence_pieces(folder, end=2)))
    (folder / "spiece.model").unlink()
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(3, pieces.get_piece_size())]
    tokenizer: Any = XLMRobertaTokenizer(vocab=[*special, *words, ("<mask>", 0.0)], model_max_length=20)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def altclip(folder: Path) -> Path:
    """AltCLIP: XLM-R reads the texts."""
    text = TEXT | {"vocab_size": xlm_roberta(folder), "max_position_embeddings": 40, "project_dim": 48}
    text |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "type_vocab_size": 1}
    config = AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=32)
    return save(AltCLIPModel(config), folder, CLIP_PICTURES)


def bert(folder: Path) -> int:
    """Save a small tokenizer of BERT's kind; the number of its tokens."""
    letters = sorted(set("".join(corpus()).lower()) - {" "})
    words = sorted({word for line in corpus() for word in line.lower().split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary += [word for word in words if word not in letters]
    tokenizer: Any = BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=20)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def chinese_clip(folder: Path) -> Path:
    """Chinese-CLIP: BERT reads the texts."""
    text = TEXT | {"vocab_size": bert(folder), "max_position_embeddings": 30}
    config = ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=32)
    pictures = FIXED_PICTURES | MEAN_STD | {"image_processor_type": "ChineseCLIPImageProcessor", "resample": 3}
    pictures |= {"do_center_crop": False}
    return save(ChineseCLIPModel(config), folder, pictures)


def groupvit(folder: Path) -> Path:
    """GroupViT."""
    text = like_clip(picturebook_words(folder))
    vision = {"image_size": 64, "patch_size": 16, "hidden_size": 64, "intermediate_size": 96, "depths": [1, 1, 1]}
    vision |= {"num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 0], "num_attention_heads": 4}
    config = GroupViTConfig(text_config=text, vision_config=vision, projection_dim=32, projection_intermediate_dim=48)
    return save(GroupViTModel(config), folder, CLIP_PICTURES)


def dual_encoder(folder: Path) -> Path:
    """A vision transformer and a BERT put together."""
    text = BertConfig(**TEXT, vocab_size=bert(folder), max_position_embeddings=30)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(CLIPVisionConfig(**VISION), text, projection_dim=32)
    return save(VisionTextDualEncoderModel(config), folder, CLIP_PICTURES)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "siglip": siglip,
    "siglip2-fixed": siglip2_fixed,
    "siglip2": siglip2,
    "clipseg": clipseg,
    "metaclip_2": metaclip_2,
    "altclip": altclip,
    "chinese_clip": chinese_clip,
    "groupvit": groupvit,
    "vision-text-dual-encoder": dual_encoder,
}


def make(family: str, folder: Path) -> Path:
    """A small model of this family in `folder`, the same each time."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    return FAMILIES[family](folder)
