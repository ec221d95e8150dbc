"""Checkpoints of open_clip as transformers' `CLIPModel`: configuration, names and shapes of weights, preprocessing.

For CLIP's architecture (Radford et al. 2021, sections 2.3 and 2.4) the two libraries compute the same and differ in
names only. Other architectures of open_clip are refused. Knows no model library: tensors of any library are sliced and
transposed. `clip_bpe` has the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from clipsearch.errors import ModelError
from clipsearch.models.disk.clip_bpe import TOKENS

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"

# open_clip's defaults for fields that a configuration leaves out.
_VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
_TEXT = {"layers": 12, "width": 512, "heads": 8, "mlp_ratio": 4.0, "context_length": 77, "vocab_size": TOKENS}
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_RESAMPLE = {"bilinear": 2, "bicubic": 3, "random": 3}
"""Pillow's numbers of filters. `random` is one of the two in training, and bicubic afterwards."""

# Settings that make an architecture differ from CLIP's, with a description. For CLIP they are absent, null or false.
_BLOCK_EXTRAS = {
    "ls_init_value": "layer scale",
    "act_kwargs": "an activation with settings of its own",
    "norm_kwargs": "norms with settings of their own",
    "qk_norm": "norms of queries and keys",
    "scaled_cosine_attn": "cosine attention",
    "scale_heads": "scaled heads",
    "scale_attn_inner": "norms within attention",
    "scale_attn": "norms after attention",
    "scale_fc": "norms within the MLP",
}
_VISION_EXTRAS = _BLOCK_EXTRAS | {
    "timm_model_name": "an image tower of timm",
    "attentional_pool": "attentional pooling",
    "no_ln_pre": "no norm before the layers",
}
_TEXT_EXTRAS = _BLOCK_EXTRAS | {
    "hf_model_name": "a text tower of transformers",
    "hf_tokenizer_name": "a tokenizer other than CLIP's",
    "tokenizer_mode": "a tokenizer other than CLIP's",
    "tokenizer_kwargs": "a tokenizer with settings of its own",
    "no_causal_mask": "text attention that looks both ways",
    "embed_cls": "a class token of texts",
    "proj_bias": "a text projection with a bias",
}
_MODEL_EXTRAS = {
    "multimodal_cfg": "a decoder that writes captions (CoCa)",
    "init_logit_bias": "a bias of logits (SigLIP)",
}
_NAMED_CHOICES = {"block_type": "default", "proj_type": "linear"}
"""Settings whose values are names, with the value for CLIP."""
_VISION_CHOICES, _TEXT_CHOICES = _NAMED_CHOICES | {"pool_type": "tok"}, _NAMED_CHOICES | {"pool_type": "argmax"}
_IGNORED = {
    # These concern training, or what is refused above.
    *("patch_dropout", "output_tokens", "pad_id", "eos_id", "attn_pooler_queries", "attn_pooler_heads"),
    *("hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "timm_model_pretrained", "timm_pool", "timm_proj"),
    *("timm_proj_bias", "timm_drop", "timm_drop_path"),
    "pos_embed_type",  # positions are among the weights, however they were initialised
    "final_ln_after_pool",  # a norm of each token is the same before and after pooling one of them
}
_MODEL_SETTINGS = {
    *("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"),
    *("init_logit_scale", "nonscalar_logit_scale"),  # the scale itself is among the weights
}
_ALTERNATIVES = {
    ("siglip", "init_logit_bias"): "SigLIP is read as transformers has it: take the model siglip or siglip2",
    ("xlm", "nllb", "mt5"): "For other languages than English there is the model siglip2",
    ("",): "Those with a ViT and CLIP's own text tower can be read; a good one is the model datacomp",
}
"""Advice by words in the configuration of a model that is refused; the first entry that matches is used."""

# Each tensor of a tower, its name in `CLIPModel`, and its shape: W is the tower's width, M that of its MLPs, T the
# number of positions, V that of tokens in the vocabulary, P the side of a patch, D the dimensions of vectors.
_LAYER = {
    "ln_1.weight": ("layer_norm1.weight", "W"),
    "ln_1.bias": ("layer_norm1.bias", "W"),
    "attn.in_proj_weight": ("self_attn.{}_proj.weight", "3W W"),
    "attn.in_proj_bias": ("self_attn.{}_proj.bias", "3W"),
    "attn.out_proj.weight": ("self_attn.out_proj.weight", "W W"),
    "attn.out_proj.bias": ("self_attn.out_proj.bias", "W"),
    "ln_2.weight": ("layer_norm2.weight", "W"),
    "ln_2.bias": ("layer_norm2.bias", "W"),
    "mlp.c_fc.weight": ("mlp.fc1.weight", "M W"),
    "mlp.c_fc.bias": ("mlp.fc1.bias", "M"),
    "mlp.c_proj.weight": ("mlp.fc2.weight", "W M"),
    "mlp.c_proj.bias": ("mlp.fc2.bias", "W"),
}
_VISION_TENSORS = {
    "visual.class_embedding": ("vision_model.embeddings.class_embedding", "W"),
    "visual.conv1.weight": ("vision_model.embeddings.patch_embedding.weight", "W 3 P P"),
    "visual.positional_embedding": ("vision_model.embeddings.position_embedding.weight", "T W"),
    "visual.ln_pre.weight": ("vision_model.pre_layrnorm.weight", "W"),  # transformers spells it so
    "visual.ln_pre.bias": ("vision_model.pre_layrnorm.bias", "W"),
    "visual.ln_post.weight": ("vision_model.post_layernorm.weight", "W"),
    "visual.ln_post.bias": ("vision_model.post_layernorm.bias", "W"),
    "visual.proj": ("visual_projection.weight", "W D"),
}
_TEXT_TENSORS = {
    "token_embedding.weight": ("text_model.embeddings.token_embedding.weight", "V W"),
    "positional_embedding": ("text_model.embeddings.position_embedding.weight", "T W"),
    "ln_final.weight": ("text_model.final_layer_norm.weight", "W"),
    "ln_final.bias": ("text_model.final_layer_norm.bias", "W"),
    "text_projection": ("text_projection.weight", "W D"),
}
_TRANSPOSED = {"visual.proj", "text_projection"}
_SCALE = "logit_scale"
_BUFFERS = {"attn_mask", "input_resolution", "context_length", "vocab_size"}
"""Tensors of old checkpoints that are not weights."""


class _Expected(NamedTuple):
    """One tensor of a checkpoint."""

    name: str
    """Its name in `CLIPModel`; `{}` stands for q, k and v where queries, keys and values are one tensor."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The configuration of a model that open_clip saved."""

    folder: Path
    model: Mapping[str, Any]
    """The architecture: `model_cfg` of the configuration."""
    images: Mapping[str, Any]
    """The preprocessing: `preprocess_cfg` of the configuration."""

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Read the configuration of the model in `folder`.

        Raises:
            ModelError: the configuration is missing or damaged, or the model cannot become a `CLIPModel`.
        """
        path = folder / CONFIG
        try:
            config = json.loads(path.read_text("utf-8"))
            checkpoint = cls(folder, config["model_cfg"], config.get("preprocess_cfg") or {})
            checkpoint._refuse_others()
            checkpoint.clip_config()
            checkpoint.preprocessing()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise ModelError(
                f"{path} is no configuration of open_clip ({error!r}). Copy the model folder again."
            ) from error
        return checkpoint

    def clip_config(self) -> dict[str, Any]:
        """Return keyword arguments for transformers' `CLIPConfig`."""
        vision, text = self._towers()
        activation = "quick_gelu" if self.model.get("quick_gelu") else "gelu"
        dim = int(self.model["embed_dim"])
        return {
            "projection_dim": dim,
            "vision_config": {
                **_transformer(vision, vision["width"] // vision["head_width"], activation, dim),
                "image_size": self._side("image_size"),
                "patch_size": self._side("patch_size"),
            },
            "text_config": {
                **_transformer(text, text["heads"], activation, dim),
                "max_position_embeddings": int(text["context_length"]),
                "vocab_size": TOKENS,
                # The vector is taken at the largest id, which is the end token.
                "eos_token_id": TOKENS - 1,
                "bos_token_id": TOKENS - 2,
                "pad_token_id": 0,
            },
        }

    def converted(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the tensors of the checkpoint to the state dict of a `CLIPModel`.

        Args:
            tensors: Tensors of the checkpoint by name, of any library.

        Returns:
            Views of the same memory, by their names in `CLIPModel`.

        Raises:
            ModelError: a tensor is missing or unexpected, or its shape differs from the configuration.
        """
        named, expected = self.check(tensors)
        weights = {_SCALE: named[_SCALE].reshape(())}
        for theirs, (ours, _) in expected.items():
            tensor = named[theirs]
            if "{}" in ours:
                third = len(tensor) // 3
                weights |= {ours.format(part): tensor[i * third : (i + 1) * third] for i, part in enumerate("qkv")}
            else:
                weights[ours] = tensor.T if theirs in _TRANSPOSED else tensor
        return weights

    def check(self, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, _Expected]]:
        """Compare the tensors of the checkpoint, or their descriptions in a header, with the configuration.

        Args:
            tensors: Tensors, or other objects with a shape, by name.

        Returns:
            The tensors by their names without prefixes, and what each has to be in a `CLIPModel`.

        Raises:
            ModelError: a tensor is missing or unexpected, or its shape differs from the configuration.
        """
        named = {_plain(name): tensor for name, tensor in tensors.items() if _plain(name) not in _BUFFERS}
        expected = self._expected()
        self._check(named, expected)
        return named, expected

    def preprocessing(self) -> dict[str, Any]:
        """Return the preprocessing as in transformers' preprocessor_config.json, plus the field `crop_offset`.

        `crop_offset` says how the offset of a crop that cannot be centred exactly is rounded: torchvision rounds
        `half_to_even`, transformers rounds down.
        """
        side = self._side("image_size")  # open_clip does not read the `size` of preprocess_cfg either
        given = {name: value for name, value in self.images.items() if value is not None}
        mode = given.get("resize_mode", "shortest")
        interpolation = given.get("interpolation", "bicubic")
        if mode not in ("shortest", "squash") or interpolation not in _RESAMPLE:
            raise self._unlike(f"another way to resize pictures ({mode}, {interpolation})")
        square = {"height": side, "width": side}
        return {
            "size": {"shortest_edge": side} if mode == "shortest" else square,
            "do_center_crop": mode == "shortest",
            "crop_size": square,
            "crop_offset": "half_to_even",
            "resample": _RESAMPLE[interpolation],
            "image_mean": _three(given.get("mean", _MEAN)),
            "image_std": _three(given.get("std", _STD)),
        }

    def _towers(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings of the image and the text tower, with open_clip's defaults."""
        return {**_VISION, **self.model["vision_cfg"]}, {**_TEXT, **self.model["text_cfg"]}

    def _side(self, name: str) -> int:
        """Return the side of a square that is given as one number or two."""
        value = self._towers()[0][name]
        sides = {int(side) for side in value} if isinstance(value, list) else {int(value)}
        if len(sides) != 1:
            raise self._unlike(f"{name.replace('_', ' ')}s that are not square")
        return sides.pop()

    def _expected(self) -> dict[str, _Expected]:
        """Return what the configuration demands of every tensor but the logit scale, by its name in the checkpoint."""
        config = self.clip_config()
        vision, text = config["vision_config"], config["text_config"]
        patches = (vision["image_size"] // vision["patch_size"]) ** 2
        shared = {"3": 3, "D": config["projection_dim"]}
        letters = shared | {"P": vision["patch_size"], "T": patches + 1}
        expected = _tensors("visual.", "vision_model.", vision, letters, _VISION_TENSORS)
        letters = shared | {"V": text["vocab_size"], "T": text["max_position_embeddings"]}
        return expected | _tensors("", "text_model.", text, letters, _TEXT_TENSORS)

    def _check(self, tensors: Mapping[str, Any], expected: Mapping[str, _Expected]) -> None:
        missing = sorted({_SCALE, *expected} - tensors.keys())
        unexpected = sorted(tensors.keys() - {_SCALE, *expected})
        if missing or unexpected:
            parts = [
                f"{len(names)} {what}, such as {names[0]}"
                for what, names in (("are missing", missing), ("are too many", unexpected))
                if names
            ]
            raise self._incomplete(f"of its tensors, {' and '.join(parts)}")
        shapes = {name: shape for name, (_, shape) in expected.items()}
        if tuple(tensors[_SCALE].shape) != (1,):  # `nonscalar_logit_scale`
            shapes[_SCALE] = ()
        for name, shape in shapes.items():
            if tuple(tensors[name].shape) != shape:
                raise self._incomplete(f"{name} is {_by(tensors[name].shape)} instead of {_by(shape)}")

    def _incomplete(self, what: str) -> ModelError:
        return ModelError(
            f"The weights in {self.folder} do not belong to {CONFIG}: {what}. Copy the model folder again."
        )

    def _refuse_others(self) -> None:
        """Refuse an architecture that is not CLIP's.

        Raises:
            ModelError: it is another one.
        """
        vision, text = self._towers()
        self._refuse_settings(self.model, _MODEL_EXTRAS, {}, _MODEL_SETTINGS)
        if isinstance(vision["layers"], list):
            raise self._unlike("a ResNet")
        self._refuse_settings(vision, _VISION_EXTRAS, _VISION_CHOICES, _VISION.keys() | _IGNORED)
        self._refuse_settings(text, _TEXT_EXTRAS, _TEXT_CHOICES, _TEXT.keys() | _IGNORED)
        if text["vocab_size"] != TOKENS:
            raise self._unlike(f"a vocabulary of {text['vocab_size']} tokens instead of CLIP's {TOKENS}")
        if self._side("image_size") % self._side("patch_size"):
            raise self._unlike("pictures that are no whole number of patches")

    def _refuse_settings(
        self,
        settings: Mapping[str, Any],
        extras: Mapping[str, str],
        choices: Mapping[str, str],
        known: set[str],
    ) -> None:
        for name, value in settings.items():
            if name in extras:
                if value:
                    raise self._unlike(extras[name])
            elif name in choices:
                if value not in (choices[name], None):
                    raise self._unlike(f"{name.replace('_', ' ')} {value!r}")
            elif name not in known:
                raise self._unlike(f"a setting that clipsearch does not know ({name})")

    def _unlike(self, what: str) -> ModelError:
        configuration = json.dumps(dict(self.model)).lower()
        other = next(advice for words, advice in _ALTERNATIVES.items() if any(word in configuration for word in words))
        return ModelError(f"{self.folder} is an open_clip model unlike CLIP: it has {what}. {other}.")


def _transformer(tower: Mapping[str, Any], heads: int, activation: str, dim: int) -> dict[str, Any]:
    """Return the part of a tower's configuration that both towers share."""
    width = int(tower["width"])
    if width % heads:
        raise ValueError(f"{heads} heads for a width of {width}")
    return {
        "hidden_size": width,
        "intermediate_size": int(width * tower["mlp_ratio"]),
        "num_hidden_layers": int(tower["layers"]),
        "num_attention_heads": int(heads),
        "hidden_act": activation,
        "layer_norm_eps": 1e-5,
        "projection_dim": dim,
    }


def _tensors(
    theirs: str, ours: str, tower: Mapping[str, Any], letters: Mapping[str, int], table: Mapping[str, tuple[str, str]]
) -> dict[str, _Expected]:
    """List the tensors of a tower: those of `table`, and those of its layers with the prefixes `theirs` and `ours`."""
    width = tower["hidden_size"]
    sizes = {**letters, "W": width, "3W": 3 * width, "M": tower["intermediate_size"]}
    named = dict(table)
    for i in range(tower["num_hidden_layers"]):
        for part, (name, shape) in _LAYER.items():
            named[f"{theirs}transformer.resblocks.{i}.{part}"] = (f"{ours}encoder.layers.{i}.{name}", shape)
    return {
        part: _Expected(name, tuple(sizes[letter] for letter in shape.split())) for part, (name, shape) in named.items()
    }


def _plain(name: str) -> str:
    """Return a tensor's name without the prefixes of parallel training and `custom_text`."""
    return name.removeprefix("module.").removeprefix("text.")


def _three(value: Any) -> list[float]:  # noqa: ANN401  (JSON: a number or three)
    red, green, blue = value if isinstance(value, (list, tuple)) else [value] * 3
    return [float(red), float(green), float(blue)]


def _by(shape: Any) -> str:  # noqa: ANN401  (a tuple, or what a library calls a shape)
    return " x ".join(str(side) for side in shape) or "a number"
