"""Image towers in torch. Those of CLIP's and SigLIP's kinds are computed here from weights alone, in less time.

The architectures are those of Radford et al. 2021 (section 2.3), a vision transformer (Dosovitskiy et al. 2020), and of
Zhai et al. 2023, which has a head with a learned query instead of the class token. They are faster than transformers'
modules because of: one matrix product for queries, keys and values; only the class token in CLIP's last layer, since
nothing else is used; OpenAI's quick_gelu as one operation instead of three; operations in place. Besides, transformers,
whose import takes longer than torch's, is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch.nn import functional

from clipsearch.errors import ModelError
from clipsearch.models.in_numpy.image_tower import ImageShape

if TYPE_CHECKING:
    from transformers import CLIPModel

Weights = Mapping[str, torch.Tensor]
_QUICK_GELU = 1.702


class _Linear(NamedTuple):
    weight: torch.Tensor
    bias: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)


class _Norm(NamedTuple):
    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class _Layer(NamedTuple):
    norm1: _Norm
    qkv: _Linear
    out: _Linear
    norm2: _Norm
    fc1: _Linear
    fc2: _Linear


class _Head(NamedTuple):
    query: _Linear
    kv: _Linear
    out: _Linear
    norm: _Norm
    fc1: _Linear
    fc2: _Linear


class ImageTower:
    """An image tower of CLIP's or SigLIP's kind: (B, 3, H, W) pixels to (B, D) vectors, not yet of unit length."""

    def __init__(self, weights: Weights, shape: ImageShape, dtype: torch.dtype, device: torch.device) -> None:
        """Use `weights`, which have the names of those of the image tower in NumPy; what has to differ is copied."""
        self.dtype, self.device = dtype, device
        self._patch, self._heads = shape.patch, shape.heads
        self._weights, self._eps = weights, shape.layer_norm_eps
        self._is_clip = "visual_projection.weight" in weights
        # x sigmoid(1.702 x) is silu(1.702 x) / 1.702, and both factors are multiplied into the weights.
        self._scale = _QUICK_GELU if shape.activation == "quick_gelu" else 1.0
        self._activation = _activation(shape.activation)
        patches = "embeddings.patch_embedding"
        self._patches = _Linear(self._own(weights[f"{patches}.weight"].flatten(1)), self._given(f"{patches}.bias"))
        self._positions = self._own(weights["embeddings.position_embedding.weight"])
        depth = sum(name.endswith(".layer_norm1.weight") for name in weights)
        self._layers = [self._layer(f"encoder.layers.{i}.") for i in range(depth)]
        self._last_norm = self._norm("post_layernorm")
        if self._is_clip:
            self._class_token = self._own(weights["embeddings.class_embedding"])
            self._first_norm = self._norm("pre_layrnorm")  # transformers spells it so
            self._projection = self._linear("visual_projection")
        else:
            self._probe = self._own(weights["head.probe"].reshape(1, -1))
            self._head = self._head_layer()
        del self._weights

    @classmethod
    def of_clip(cls, model: CLIPModel, dtype: torch.dtype, device: torch.device) -> ImageTower:
        """Make the image tower of `model`, which stays as it is."""
        config = cast("Any", model.config).vision_config  # its parts are typed as objects or dictionaries
        weights = dict(model.vision_model.state_dict())
        weights["visual_projection.weight"] = model.visual_projection.weight
        shape = ImageShape(config.num_attention_heads, config.hidden_act, config.layer_norm_eps, config.patch_size)
        return cls(weights, shape, dtype, device)

    def _layer(self, name: str) -> _Layer:
        attention = f"{name}self_attn."
        qkv = [f"{attention}{letter}_proj" for letter in "qkv"]
        return _Layer(
            norm1=self._norm(f"{name}layer_norm1"),
            qkv=self._joined(qkv),
            out=self._linear(f"{attention}out_proj"),
            norm2=self._norm(f"{name}layer_norm2"),
            fc1=self._linear(f"{name}mlp.fc1", self._scale, self._scale),
            fc2=self._linear(f"{name}mlp.fc2", 1 / self._scale),
        )

    def _head_layer(self) -> _Head:
        attention = "head.attention."
        return _Head(
            query=self._linear(f"{attention}q_proj"),
            kv=self._joined([f"{attention}{letter}_proj" for letter in "kv"]),
            out=self._linear(f"{attention}out_proj"),
            norm=self._norm("head.layernorm"),
            fc1=self._linear("head.mlp.fc1", self._scale, self._scale),
            fc2=self._linear("head.mlp.fc2", 1 / self._scale),
        )

    def _joined(self, names: list[str]) -> _Linear:
        """Join the weights of several matrix products of the same input into one."""
        kinds = ("weight", "bias")
        weight, bias = (torch.cat([self._own(self._weights[f"{name}.{kind}"]) for name in names]) for kind in kinds)
        return _Linear(weight, bias)

    def _linear(self, name: str, factor: float = 1.0, of_bias: float = 1.0) -> _Linear:
        weight = self._weights[f"{name}.weight"]
        return _Linear(self._own(weight * factor if factor != 1 else weight), self._given(f"{name}.bias", of_bias))

    def _norm(self, name: str) -> _Norm:
        weight, bias = (self._own(self._weights[f"{name}.{kind}"]) for kind in ("weight", "bias"))
        return _Norm(weight, bias, self._eps)

    def _given(self, name: str, factor: float = 1.0) -> torch.Tensor | None:
        weight = self._weights.get(name)
        return None if weight is None else self._own(weight * factor if factor != 1 else weight)

    def _own(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(self.device, self.dtype).contiguous()

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute (B, D) vectors in the tower's dtype from (B, 3, H, W) normalised pixels."""
        # 1. (B, T, W) tokens: patches, for CLIP with the class token before them, plus positions.
        x = self._patches(self._cut(pixels))
        if self._is_clip:
            x = torch.cat([self._class_token.expand(len(x), 1, -1), x], dim=1) + self._positions
            x = self._first_norm(x)
        else:
            x += self._positions
        # 2. Layers.
        for layer in self._layers:
            seen = x[:, :1] if self._is_clip and layer is self._layers[-1] else x
            x = layer.out(self._attention(layer.qkv(layer.norm1(x)), seen.shape[1])).add_(seen)
            x = layer.fc2(self._activation(layer.fc1(layer.norm2(x)))).add_(x)
        # 3. The projected class token, or the output of the head.
        if self._is_clip:
            return self._projection(self._last_norm(x[:, 0]))
        return self._pooled(self._last_norm(x))

    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        """Pool (B, T, W) patches to (B, W) by attention with a learned query and an MLP."""
        head, (batch, _, width) = self._head, x.shape
        query = head.query(self._probe).view(1, 1, self._heads, -1).transpose(1, 2).expand(batch, -1, -1, -1)
        keys, values = head.kv(x).view(batch, -1, 2, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, keys, values)
        pooled = head.out(seen.transpose(1, 2).reshape(batch, width))
        return head.fc2(self._activation(head.fc1(head.norm(pooled)))).add_(pooled)

    def _cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Cut images into (B, T - 1, 3 P P) square patches, row by row, each as a flat vector."""
        batch, channels, height, width = pixels.shape
        rows, columns = height // self._patch, width // self._patch
        cut = pixels.reshape(batch, channels, rows, self._patch, columns, self._patch)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)

    def _attention(self, qkv: torch.Tensor, tokens: int) -> torch.Tensor:
        """Compute (B, tokens, W) attention of the first `tokens` tokens to all, before the output projection."""
        batch, length, width = qkv.shape
        q, k, v = qkv.view(batch, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q[:, :, :tokens], k, v)
        return seen.transpose(1, 2).reshape(batch, tokens, width // 3)


def _activation(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the activation function by its name in a configuration; quick_gelu's factors are in the weights."""
    known: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "quick_gelu": partial(functional.silu, inplace=True),
        "gelu": functional.gelu,
        "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    }
    if name in known:
        return known[name]
    from transformers.activations import ACT2FN

    return cast("Callable[[torch.Tensor], torch.Tensor]", ACT2FN[name])


class PlainTower:
    """The image tower of any other family, as transformers computes it."""

    def __init__(self, model: Any, dtype: torch.dtype, device: torch.device) -> None:  # noqa: ANN401  (of any family)
        """Move `model` to the device except for its text tower, which stays in float32 on the CPU."""
        self.dtype, self.device = dtype, device
        self._model = model.requires_grad_(False)  # gradients may be wanted for pixels, but never for weights
        for name, part in model.named_children():
            if not name.startswith("text"):
                part.to(device, dtype)

    def __call__(self, pixel_values: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        """Compute (B, D) vectors in the tower's dtype; `more` are arguments of some families besides the pixels."""
        found: torch.Tensor | None = self._model.get_image_features(pixel_values=pixel_values, **more).pooler_output
        if found is None:
            raise ModelError("The configuration leaves the head of the image tower out, so there are no vectors.")
        return found
