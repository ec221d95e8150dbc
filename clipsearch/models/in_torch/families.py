"""Loading of models of every family with transformers, and the differences between families.

A family is a value of `model_type` in a configuration. All models have an image and a text tower and the methods
`get_image_features` and `get_text_features`. CLIP's image tower is computed by `image_tower`, others by transformers
itself; the text towers of `LIKE_CLIP` and `LIKE_SIGLIP` can be computed by `text_tower` too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer, CLIPConfig, CLIPModel, PreTrainedModel
from transformers.utils import logging

from clipsearch.errors import ModelError
from clipsearch.models.disk import clip_bpe
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.disk.hub import incomplete
from clipsearch.models.disk.open_clip import WEIGHTS, Checkpoint
from clipsearch.models.in_numpy.text_tower import LIKE_CLIP, LIKE_SIGLIP, FixedLength, TowerShape, foreign_token
from clipsearch.models.in_torch import siglip_tokenizer
from clipsearch.models.logits import Logits
from clipsearch.system.failures import is_shortage

_OLD_END = 2
"""Value of `eos_token_id` that in `clip` and `clipseg` means: the end token is the largest id of the text."""
_LEAST_CONTEXT = 3
"""Least number of tokens: start, end and one between them."""
_NO_LIMIT = 10**6
"""Tokenizers without a limit give a larger number than this as their limit."""


def load(files: ModelFiles) -> PreTrainedModel:
    """Load a model in float32 on the CPU, ready for inference.

    Raises:
        ModelError: the weights are broken or do not belong to the configuration.
    """
    try:
        with _quiet():
            model = _load_open_clip(files) if files.layout == "open_clip" else _load(files)
    except UnpicklingError as error:
        raise ModelError(
            f"The weights in {files.folder} cannot be loaded: they hold more than tensors, and may run any code. "
            "Nothing of that was run. Take weights in safetensors."
        ) from error
    except ModelError:
        raise
    except Exception as error:  # transformers may raise anything if the configuration is wrong
        if is_shortage(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise incomplete(files.folder, f"The weights in {files.folder} cannot be loaded: {reason}.") from error
    torch.nn.Module.eval(model)  # the model's own `eval` is not typed
    return model


def _load(files: ModelFiles) -> PreTrainedModel:
    loaded: Any = AutoModel.from_pretrained(
        files.folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(loaded[1]["missing_keys"])
    if missing:
        lacking = f"{len(missing)} tensors are missing, such as {missing[0]}"
        raise incomplete(files.folder, f"The weights in {files.folder} are incomplete: {lacking}.")
    model: PreTrainedModel = loaded[0]
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise ModelError(f"{files.folder} holds a {type(model).__name__}, which has no vectors for pictures and texts.")
    return model


def _load_open_clip(files: ModelFiles) -> CLIPModel:
    checkpoint = Checkpoint.load(files.folder)
    with torch.device("meta"):  # no memory for weights that are replaced
        model = CLIPModel(CLIPConfig(**checkpoint.clip_config()))
    tensors = checkpoint.converted(load_file(files.folder / WEIGHTS))
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    for name, buffer in model.named_buffers():  # buffers are not among the weights, and so still without memory
        if buffer.is_meta:
            owner = model.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return model


def family(model: PreTrainedModel) -> str:
    """Return the name of the model's family."""
    return str(model.config.model_type)


def dim(model: PreTrainedModel) -> int:
    """Return the dimensions D of the model's vectors."""
    config: Any = model.config
    return int(config.text_config.projection_size if family(model) in LIKE_SIGLIP else config.projection_dim)


def image_width(model: PreTrainedModel) -> int:
    """Return the width of the image tower's layers; 0 where the configuration names none."""
    return int(getattr(getattr(model.config, "vision_config", None), "hidden_size", 0))


def logits(model: Any) -> Logits:  # noqa: ANN401  (parameters of any model)
    """Read the scale and bias for probabilities from a model's weights.

    Raises:
        ModelError: they are not finite, or the scale is not positive.
    """
    scale, bias = float(model.logit_scale.detach().exp()), getattr(model, "logit_bias", None)
    found = Logits(scale, None if bias is None else float(bias.detach()))
    if not (0 < scale < math.inf and math.isfinite(found.bias or 0.0)):
        raise ModelError(f"The weights are damaged: their scale of logits is {scale:g}, their bias {found.bias}.")
    return found


class Texts:
    """A model's tokenizer, and the properties of its text tower that `TowerShape` needs."""

    def __init__(self, files: ModelFiles, model: PreTrainedModel) -> None:
        self.family = family(model)
        self.tokenizer: Tokenizer
        self.pad = 0
        self.fixed: FixedLength | None = None
        self.cleaned = files.layout == "open_clip"
        config: Any = model.config
        self._config = config.text_config
        self.context = int(self._config.max_position_embeddings)
        self.vocabulary = int(self._config.vocab_size)
        if self.cleaned:
            self.tokenizer = clip_bpe.find_tokenizer(files.folder)
        else:
            self._read_tokenizer(_tokenizer(files))

    def _read_tokenizer(self, tokenizer: Any) -> None:  # noqa: ANN401  (transformers', of no common public type)
        self.tokenizer = _backend(tokenizer)
        self.pad = int(tokenizer.pad_token_id or 0)
        if self.family in LIKE_SIGLIP:
            masked = "attention_mask" in tokenizer.model_input_names
            self.fixed = FixedLength(self.pad, left=tokenizer.padding_side == "left", masked=masked)
        elif self.family not in LIKE_CLIP:
            if "roberta" in str(self._config.model_type) or self.family == "altclip":
                if not isinstance(self._config.pad_token_id, int):
                    raise ModelError("The configuration of the text tower names no padding (pad_token_id).")
                self.context -= self.pad + 1  # its positions begin behind that of the padding
            if tokenizer.model_max_length < _NO_LIMIT:
                self.context = min(self.context, tokenizer.model_max_length)
        if self.context < _LEAST_CONTEXT:
            raise ModelError(
                f"The tokenizer does not belong to the text tower: texts would have {self.context} tokens."
            )

    def inputs(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Return the arguments of `get_text_features` for the token ids of B texts.

        Raises:
            ModelError: the tokenizer does not belong to the text tower.
        """
        fixed = self.fixed
        length = self.context if fixed else max(map(len, ids))
        tokens = torch.full((len(ids), length), fixed.token if fixed else self.pad)
        mask = torch.zeros_like(tokens)
        for i, one in enumerate(ids):
            place = slice(length - len(one), None) if fixed and fixed.left else slice(len(one))
            tokens[i, place], mask[i, place] = torch.tensor(one), 1
        if (largest := int(tokens.max())) >= self.vocabulary:
            raise ModelError(foreign_token(largest, self.vocabulary))
        seen = {} if fixed and not fixed.masked else {"attention_mask": mask}
        return {"input_ids": tokens, **seen}

    def shape(self, logits: Logits) -> TowerShape | None:
        """Return the description for `TextTower`; None where that cannot compute the tower."""
        if self.family not in (*LIKE_CLIP, *LIKE_SIGLIP):
            return None
        end = None if self.fixed else self._config.eos_token_id
        return TowerShape(
            heads=self._config.num_attention_heads,
            activation=self._config.hidden_act,
            layer_norm_eps=self._config.layer_norm_eps,
            context=self.context,
            logit_scale=logits.scale,
            logit_bias=logits.bias,
            eos_token_id=None if end == _OLD_END and self.family != "metaclip_2" else end,
            fixed=self.fixed,
            cleaned=self.cleaned,
        )


def _tokenizer(files: ModelFiles) -> Any:  # noqa: ANN401  (transformers', of no common public type)
    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing narrower
        if is_shortage(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{files.folder}: the tokenizer cannot be loaded: {reason}") from error


def _backend(tokenizer: Any) -> Tokenizer:  # noqa: ANN401
    if type(tokenizer).__name__ == "SiglipTokenizer":
        try:
            return siglip_tokenizer.converted(tokenizer)
        except Exception as error:  # tokenizers raises nothing narrower
            raise ModelError(f"The tokenizer cannot be read: {error}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelError(
            f"A {type(tokenizer).__name__} cannot be used without transformers. Save the tokenizer as tokenizer.json."
        )
    return backend


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log and the warnings of transformers; what matters is raised as an error."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
