"""Image towers in torch. CLIP's is computed here with the weights of transformers' `CLIPModel`, in less time.

The architecture is that of Radford et al. 2021 (section 2.3), a vision transformer (Dosovitskiy et al. 2020). It is
faster than the modules from which it takes the weights because of: one matrix product for queries, keys and values;
only the class token in the last layer, since nothing else is used; OpenAI's quick_gelu as one operation instead of
three; operations in place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch.nn import functional
from transformers import CLIPModel

from clipsearch.errors import ModelError

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


class ImageTower:
    """CLIP's image tower: (B, 3, H, W) normalised pixels to (B, D) vectors, not yet of unit length."""

    def __init__(self, model: CLIPModel, dtype: torch.dtype, device: torch.device) -> None:
        """Copy the weights of `model`, which stays as it is."""
        config = cast("Any", model.config).vision_config  # its parts are typed as objects or dictionaries
        vision: Any = model.vision_model
        self.dtype, self.device = dtype, device
        self._patch: int = config.patch_size
        self._heads: int = config.num_attention_heads
        embeddings = vision.embeddings
        self._patches = self._linear(embeddings.patch_embedding.weight.flatten(1))
        self._class_token = self._own(embeddings.class_embedding)
        self._positions = self._own(embeddings.position_embedding.weight)
        self._first_norm = self._norm(vision.pre_layrnorm)  # transformers spells it so
        self._last_norm = self._norm(vision.post_layernorm)
        self._projection = self._linear(model.visual_projection.weight)
        # x sigmoid(1.702 x) is silu(1.702 x) / 1.702, and both factors are multiplied into the weights.
        quick = config.hidden_act == "quick_gelu"
        self._activation: Callable[[torch.Tensor], torch.Tensor]
        self._activation = vision.encoder.layers[0].mlp.activation_fn
        if quick:
            self._activation = partial(functional.silu, inplace=True)
        scale = _QUICK_GELU if quick else 1.0
        self._layers = [self._layer(layer, scale) for layer in vision.encoder.layers]

    def _layer(self, layer: Any, scale: float) -> _Layer:  # noqa: ANN401  (transformers')
        attention, mlp = layer.self_attn, layer.mlp
        qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
        return _Layer(
            norm1=self._norm(layer.layer_norm1),
            qkv=self._linear(torch.cat([part.weight for part in qkv]), torch.cat([part.bias for part in qkv])),
            out=self._linear(attention.out_proj.weight, attention.out_proj.bias),
            norm2=self._norm(layer.layer_norm2),
            fc1=self._linear(mlp.fc1.weight * scale, mlp.fc1.bias * scale),
            fc2=self._linear(mlp.fc2.weight / scale, mlp.fc2.bias),
        )

    def _linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> _Linear:
        return _Linear(self._own(weight), None if bias is None else self._own(bias))

    def _norm(self, norm: torch.nn.LayerNorm) -> _Norm:
        return _Norm(self._own(norm.weight), self._own(norm.bias), norm.eps)

    def _own(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(self.device, self.dtype).contiguous()

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute (B, D) vectors in the tower's dtype from (B, 3, H, W) normalised pixels."""
        # 1. (B, T, W) tokens: the class token and the patches, plus positions.
        x = self._patches(self._cut(pixels))
        x = torch.cat([self._class_token.expand(len(x), 1, -1), x], dim=1) + self._positions
        x = self._first_norm(x)
        # 2. Layers.
        for layer in self._layers:
            seen = x[:, :1] if layer is self._layers[-1] else x
            x = layer.out(self._attention(layer.qkv(layer.norm1(x)), seen.shape[1])).add_(seen)
            x = layer.fc2(self._activation(layer.fc1(layer.norm2(x)))).add_(x)
        # 3. The class token, projected.
        return self._projection(self._last_norm(x[:, 0]))

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


class PlainTower:
    """The image tower of any other family, as transformers computes it."""

    def __init__(self, model: Any, dtype: torch.dtype, device: torch.device) -> None:  # noqa: ANN401  (of any family)
        """Move `model` to the device except for its text tower, which stays in float32 on the CPU."""
        self.dtype, self.device = dtype, device
        self._model = model
        for name, part in model.named_children():
            if not name.startswith("text"):
                part.to(device, dtype)

    def __call__(self, pixel_values: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        """Compute (B, D) vectors in the tower's dtype; `more` are arguments of some families besides the pixels."""
        found: torch.Tensor | None = self._model.get_image_features(pixel_values=pixel_values, **more).pooler_output
        if found is None:
            raise ModelError("The configuration leaves the head of the image tower out, so there are no vectors.")
        return found
