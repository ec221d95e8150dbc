"""The image transformers of CLIP and SigLIP in numpy: a few images are embedded before torch would be imported.

CLIP's is that of Radford et al. 2021 (section 2.3), a vision transformer (Dosovitskiy et al. 2020): patches, a class
token before them, positions, a norm, layers, the class token's vector through another norm and a projection. SigLIP's
(Zhai et al. 2023) has neither class token nor first norm; a head asks all patches with a learned query. SigLIP 2 has a
kind for images of any proportions (NaFlex), whose grid of positions is resized to that of the image's patches.

Where the weights come from is none of its business: see `extraction` and `tower_cache`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipsearch.models.in_numpy.transformer import Batch, Transformer, Weights, product, threads_for_products
from clipsearch.system import cores
from clipsearch.unit import Array

if TYPE_CHECKING:
    from clipsearch.models.preprocessing import Preprocessing

_CLASS, _PATCHES, _POSITIONS = (
    f"embeddings.{name}" for name in ("class_embedding", "patch_embedding", "position_embedding.weight")
)
_PROJECTION, _PROBE = "visual_projection", "head.probe"


@dataclass(frozen=True)
class ImageShape:
    """What the weights alone do not tell."""

    heads: int
    activation: str
    """One of `activations.ACTIVATIONS`."""
    layer_norm_eps: float
    patch: int
    """Pixels on a side of one."""


class ImageTower:
    """An image tower over memory-mapped weights.

    These have the names of transformers' `CLIPVisionModel` plus `visual_projection.weight`, or of `SiglipVisionModel`
    with queries, keys and values of the head apart, as the layers have them.
    """

    def __init__(self, weights: Weights, shape: ImageShape, preprocessing: Preprocessing) -> None:
        """`preprocessing` is the model's own."""
        self.shape = shape
        self.preprocessing = preprocessing
        self._weights = weights
        self._transformer = Transformer(weights, shape.heads, shape.activation, shape.layer_norm_eps)
        self._is_clip = _CLASS in weights
        self.dim: int = weights[f"{_PROJECTION}.weight" if self._is_clip else "head.mlp.fc2.weight"].shape[0]
        self.batch_size = 4 * cores.available()
        """Images that `encode_images` is best given at a time."""
        self.calls = 1
        """How many calls of `encode_images` at the same time are best: each takes all cores."""
        patch = weights[f"{_PATCHES}.weight"]
        self._any_proportions = patch.ndim == 2  # noqa: PLR2004  (others have colours, lines and columns apart)
        self._patch_weight = patch.reshape(len(patch), -1)
        mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
        self._factor, self._offset = np.float32(preprocessing.scale / std), np.float32(-mean / std)

    @property
    def work(self) -> int:
        """Floating-point operations that one image takes in the layers, which is nearly all of them."""
        elements = sum(array.size for name, array in self._weights.items() if name.startswith("encoder.layers."))
        resize = self.preprocessing.resize
        tokens = getattr(resize, "most", len(self._weights[_POSITIONS]))  # an image of any proportions has no more
        return 2 * elements * tokens

    def sees(self, height: int, width: int) -> bool:
        """Whether an image of so many pixels has a patch for each position; others cannot be computed here."""
        if self._any_proportions:
            return True
        places = len(self._weights[_POSITIONS]) - self._is_clip
        return height == width and (height // self.shape.patch) ** 2 == places

    def encode_images(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> Array:
        """(B, D) unit vectors of B images, (H, W, 3) pixels each, as `preprocessing` makes them; on all cores.

        What is no vector is left to the caller (see `are_unit`).
        """
        vectors = self.embed(self._normal(pixels))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def hidden_states(self, pixels: Sequence[npt.NDArray[np.uint8]], layer: int) -> Array:
        """(B, T, W) what a layer makes of the tokens of B images; the class token comes first where there is one.

        Args:
            pixels: (H, W, 3) each, as `preprocessing` makes them.
            layer: Number of layers that are passed, from 0 to `depth`, as transformers counts `hidden_states`.

        Raises:
            ValueError: the images have different numbers of tokens.
        """

        def states(normal: Sequence[Array], threads: int) -> Array:
            with np.errstate(all="ignore"):
                x, batch = self._tokens(normal, threads)
                x = self._transformer.layers(x, batch._replace(kept=None), layer)
            return x.reshape(len(normal), -1, x.shape[1])

        return self._in_parts(self._normal(pixels), states)

    @property
    def depth(self) -> int:
        """Number of layers."""
        return self._transformer.depth

    @property
    def has_class_token(self) -> bool:
        """Whether a class token comes before the patches, as in CLIP."""
        return self._is_clip

    def _normal(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> list[Array]:
        return [image * self._factor + self._offset for image in pixels]

    def embed(self, normal: Sequence[Array]) -> Array:
        """(B, D) vectors, not of unit length, of B times (H, W, 3) normalised pixels."""
        return self._in_parts(normal, self._embed)

    @staticmethod
    def _in_parts(normal: Sequence[Array], work: Callable[[Sequence[Array], int], Array]) -> Array:
        """What `work` makes of all images: it is given some of them, and the number of threads for each product."""
        threads = threads_for_products()
        parts = max(1, min(threads, len(normal)))
        bounds = [len(normal) * i // parts for i in range(parts + 1)]
        pieces = [normal[start:stop] for start, stop in pairwise(bounds)]
        if parts == 1:
            return work(pieces[0], threads)
        with ThreadPoolExecutor(parts) as pool:
            return np.concatenate(list(pool.map(lambda piece: work(piece, threads // parts), pieces)))

    def _embed(self, normal: Sequence[Array], threads: int) -> Array:
        """The same, computed together; `threads` share each product."""
        with np.errstate(all="ignore"):  # which each thread would print, of damaged weights
            # 1. Tokens.
            x, batch = self._tokens(normal, threads)
            # 2. Layers; of CLIP's last one nothing but the class token is used.
            x = self._transformer.layers(x, batch)
            # 3. The class token projected, or the head's answer.
            x = self._transformer.norm(x, "post_layernorm")
            return self._transformer.linear(x, _PROJECTION) if self._is_clip else self._head(x, batch)

    def _tokens(self, normal: Sequence[Array], threads: int) -> tuple[Array, Batch]:
        """(T, W) what the first layer is given: patches with positions, in CLIP the class token before each image's."""
        grids = [(image.shape[0] // self.shape.patch, image.shape[1] // self.shape.patch) for image in normal]
        patches = np.concatenate([self._cut(image, *grid) for image, grid in zip(normal, grids, strict=True)])
        x = product(patches, self._patch_weight, self._weights.get(f"{_PATCHES}.bias"), threads)
        lengths = [rows * columns + self._is_clip for rows, columns in grids]
        x = self._placed(x, grids)
        if not self._is_clip:
            return x, Batch(lengths, threads=threads)
        return self._transformer.norm(x, "pre_layrnorm"), Batch(lengths, np.cumsum([0, *lengths[:-1]]), threads=threads)

    def _cut(self, image: Array, rows: int, columns: int) -> Array:
        """(rows columns, 3 P P) square patches of (H, W, 3) pixels, line by line, each in its weights' order."""
        side = self.shape.patch
        cut = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
        order = (0, 2, 1, 3, 4) if self._any_proportions else (0, 2, 4, 1, 3)
        return np.asarray(cut.transpose(order).reshape(rows * columns, -1))

    def _placed(self, x: Array, grids: Sequence[tuple[int, int]]) -> Array:
        """Patches with their positions, and class tokens where there are any."""
        positions = self._weights[_POSITIONS]
        if self._any_proportions:
            return np.asarray(x + np.concatenate([_resized(positions, *grid) for grid in grids]))
        if not self._is_clip:
            return np.asarray(x + np.tile(positions, (len(grids), 1)))
        tokens = np.empty((len(grids), len(positions), x.shape[1]), np.float32)
        tokens[:, 0] = self._weights[_CLASS]
        tokens[:, 1:] = x.reshape(len(grids), -1, x.shape[1])
        tokens += positions
        return tokens.reshape(-1, x.shape[1])

    def _head(self, x: Array, batch: Batch) -> Array:
        """(B, W): what a learned query gathers from each image's patches, and an MLP adds to it."""
        probe = np.repeat(self._weights[_PROBE].reshape(1, -1), len(batch.lengths), axis=0)
        pooled = self._transformer.attention(probe, x, "head.attention.", batch)
        return pooled + self._transformer.mlp(
            self._transformer.norm(pooled, "head.layernorm"), "head.mlp.", batch.threads
        )


def _resized(positions: npt.NDArray[np.floating], rows: int, columns: int) -> Array:
    """(rows columns, W) of (S S, W) positions on a square, as torch resizes with mode="bilinear" and antialias."""
    side = math.isqrt(len(positions))
    grid = positions.reshape(side, side, -1)
    filters = _triangles(side, rows)
    if columns == 1 and rows != side:
        # torch 2.13 gives all places of a single column what belongs to the first; so do models that are run in it.
        filters = np.repeat(filters[:1], rows, axis=0)
    down = np.tensordot(filters, grid, 1)
    across = np.einsum("cs,rsw->rcw", _triangles(side, columns), down)
    return np.asarray(across.reshape(rows * columns, -1), np.float32)


def _triangles(source: int, target: int) -> Array:
    """(target, source): how much each of the old places counts for each of the new ones.

    The filter is a triangle, as wide as two old places or, where there are fewer new ones, as two of these.
    """
    scale = source / target
    width = max(scale, 1.0)
    centres = (np.arange(target) + 0.5)[:, np.newaxis] * scale
    distance = np.abs(np.arange(source) + 0.5 - centres) / width
    weights = np.maximum(0.0, 1.0 - distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
