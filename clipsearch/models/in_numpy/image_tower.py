"""The image transformers of CLIP and SigLIP in NumPy, which embed a few images in less time than torch's import takes.

CLIP's is that of Radford et al. 2021 (section 2.3), a vision transformer (Dosovitskiy et al. 2020): patches, a class
token before them, positions, a norm, layers, the class token's vector through another norm and a projection. SigLIP's
(Zhai et al. 2023) has neither class token nor first norm; a head pools all patches by attention with a learned query.
SigLIP 2 has a kind for images of any proportions (NaFlex), whose grid of positions is resized to that of the patches.

Knows nothing of where weights come from: see `extraction` and `image_cache`.
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
    """The description of an image tower, apart from its weights."""

    heads: int
    activation: str
    """One of `activations.ACTIVATIONS`."""
    layer_norm_eps: float
    patch: int
    """Side of a patch in pixels."""


class ImageTower:
    """An image tower over memory-mapped weights.

    These have the names of transformers' `CLIPVisionModel` plus `visual_projection.weight`, or of `SiglipVisionModel`
    with queries, keys and values of the head apart, as the layers have them.
    """

    def __init__(self, weights: Weights, shape: ImageShape, preprocessing: Preprocessing) -> None:
        """Use `weights` as they are; `preprocessing` has to be that of the same model."""
        self.shape = shape
        self.preprocessing = preprocessing
        self.weights = weights
        self._transformer = Transformer(weights, shape.heads, shape.activation, shape.layer_norm_eps)
        self._is_clip = _CLASS in weights
        self.dim: int = weights[f"{_PROJECTION}.weight" if self._is_clip else "head.mlp.fc2.weight"].shape[0]
        self.batch_size = 4 * cores.available()
        """Best number of images for one call of `encode_images`."""
        self.calls = 1
        """Best number of calls of `encode_images` at the same time: each uses all cores."""
        patch = weights[f"{_PATCHES}.weight"]
        self._any_proportions = patch.ndim == 2  # noqa: PLR2004  (others have axes for colours, rows and columns)
        self.width: int = len(patch)
        """Width W of the layers."""
        self._patch_weight = patch.reshape(len(patch), -1)
        mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
        self._factor, self._offset = np.float32(preprocessing.scale / std), np.float32(-mean / std)

    @property
    def work(self) -> int:
        """Number of floating-point operations for one image in the layers, which are nearly all."""
        elements = sum(array.size for name, array in self.weights.items() if name.startswith("encoder.layers."))
        resize = self.preprocessing.resize
        tokens = getattr(resize, "most", len(self.weights[_POSITIONS]))  # the limit for images of any proportions
        return 2 * elements * tokens

    def sees(self, height: int, width: int) -> bool:
        """Return whether images of this height and width in pixels can be computed: one patch for each position."""
        if self._any_proportions:
            return True
        places = len(self.weights[_POSITIONS]) - self._is_clip
        return height == width and (height // self.shape.patch) ** 2 == places

    def encode_images(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> Array:
        """Embed images, using all cores.

        Args:
            pixels: B images, (H, W, 3) each, as `preprocessing` returns them.

        Returns:
            (B, D) float32 unit vectors. The caller has to check that they are (see `are_unit`).
        """
        vectors = self.embed(self._normal(pixels))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def hidden_states(self, pixels: Sequence[npt.NDArray[np.uint8]], layer: int) -> Array:
        """Compute the output of a layer for images.

        Args:
            pixels: B images, (H, W, 3) each, as `preprocessing` returns them.
            layer: Number of layers that are applied, from 0 to `depth`, as transformers counts `hidden_states`.

        Returns:
            (B, T, W) float32 vectors of tokens; the class token comes first where there is one.

        Raises:
            ValueError: the images have different numbers of tokens.
        """

        def states(normal: Sequence[Array], threads: int) -> Array:
            with np.errstate(all="ignore"):
                x, batch = self._tokens(normal, threads)
                x = self._transformer.layers(x, batch._replace(kept=None), layer)
            return x.reshape(len(normal), -1, x.shape[1])

        return self._in_parts(self._normal(pixels), states)

    def patch_vectors(self, pixels: npt.NDArray[np.uint8]) -> Array:
        """Compute a vector for each patch of an image, which texts can be compared with.

        With CLIP, they are made by the last layer's attention among tokens that are alike (`Transformer.alike`), with
        SigLIP by the head, which pools each patch alone.

        Args:
            pixels: (H, W, 3), as `preprocessing` returns them.

        Returns:
            (rows, columns, D) float32 unit vectors. The caller has to check that they are (see `are_unit`).
        """
        with np.errstate(all="ignore"):
            x, batch = self._tokens(self._normal([pixels]), threads_for_products())
            batch = batch._replace(kept=None)
            if self._is_clip:
                x = self._transformer.alike(self._transformer.layers(x, batch, self.depth - 1), batch)
                vectors = self._transformer.linear(self._transformer.norm(x[1:], "post_layernorm"), _PROJECTION)
            else:
                x = self._transformer.norm(self._transformer.layers(x, batch), "post_layernorm")
                vectors = self._head(x, batch._replace(lengths=[1] * len(x)))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.reshape(*self._grid(pixels), -1)

    @property
    def depth(self) -> int:
        """Number of layers."""
        return self._transformer.depth

    @property
    def has_class_token(self) -> bool:
        """Whether the first token is a class token, as in CLIP."""
        return self._is_clip

    def _normal(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> list[Array]:
        return [image * self._factor + self._offset for image in pixels]

    def embed(self, normal: Sequence[Array]) -> Array:
        """Compute (B, D) float32 vectors, not of unit length, of B images of (H, W, 3) normalised pixels."""
        return self._in_parts(normal, self._embed)

    @staticmethod
    def _in_parts(normal: Sequence[Array], work: Callable[[Sequence[Array], int], Array]) -> Array:
        """Call `work` in threads with parts of the images and the number of threads for each product."""
        threads = threads_for_products()
        parts = max(1, min(threads, len(normal)))
        bounds = [len(normal) * i // parts for i in range(parts + 1)]
        pieces = [normal[start:stop] for start, stop in pairwise(bounds)]
        if parts == 1:
            return work(pieces[0], threads)
        with ThreadPoolExecutor(parts) as pool:
            return np.concatenate(list(pool.map(lambda piece: work(piece, threads // parts), pieces)))

    def _embed(self, normal: Sequence[Array], threads: int) -> Array:
        """Compute what `embed` returns, all images together; each matrix product is divided among `threads`."""
        with np.errstate(all="ignore"):  # with damaged weights, each thread would print warnings
            # 1. Tokens.
            x, batch = self._tokens(normal, threads)
            # 2. Layers; of the output of CLIP's last one only the class token is used.
            x = self._transformer.layers(x, batch)
            # 3. The projected class token, or the output of the head.
            x = self._transformer.norm(x, "post_layernorm")
            return self._transformer.linear(x, _PROJECTION) if self._is_clip else self._head(x, batch)

    def _tokens(self, normal: Sequence[Array], threads: int) -> tuple[Array, Batch]:
        """Return the (T, W) input of the first layer: patches with positions, for CLIP with class tokens."""
        grids = [self._grid(image) for image in normal]
        patches = np.concatenate([self._cut(image, *grid) for image, grid in zip(normal, grids, strict=True)])
        x = product(patches, self._patch_weight, self.weights.get(f"{_PATCHES}.bias"), threads)
        lengths = [rows * columns + self._is_clip for rows, columns in grids]
        x = self._placed(x, grids)
        if not self._is_clip:
            return x, Batch(lengths, threads=threads)
        return self._transformer.norm(x, "pre_layrnorm"), Batch(lengths, np.cumsum([0, *lengths[:-1]]), threads=threads)

    def _grid(self, image: npt.NDArray[np.generic]) -> tuple[int, int]:
        """Return the number of rows and columns of patches in an (H, W, 3) image."""
        return image.shape[0] // self.shape.patch, image.shape[1] // self.shape.patch

    def _cut(self, image: Array, rows: int, columns: int) -> Array:
        """Cut (H, W, 3) pixels into (rows * columns, 3 P P) patches, row by row, values in the weights' order."""
        side = self.shape.patch
        cut = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
        order = (0, 2, 1, 3, 4) if self._any_proportions else (0, 2, 4, 1, 3)
        return np.asarray(cut.transpose(order).reshape(rows * columns, -1))

    def _placed(self, x: Array, grids: Sequence[tuple[int, int]]) -> Array:
        """Add positions to patches, and put class tokens before them where the tower has one."""
        positions = self.weights[_POSITIONS]
        if self._any_proportions:
            return np.asarray(x + np.concatenate([_resized(positions, *grid) for grid in grids]))
        if not self._is_clip:
            return np.asarray(x + np.tile(positions, (len(grids), 1)))
        tokens = np.empty((len(grids), len(positions), x.shape[1]), np.float32)
        tokens[:, 0] = self.weights[_CLASS]
        tokens[:, 1:] = x.reshape(len(grids), -1, x.shape[1])
        tokens += positions
        return tokens.reshape(-1, x.shape[1])

    def _head(self, x: Array, batch: Batch) -> Array:
        """Pool each image's patches to (B, W) by attention with a learned query and an MLP."""
        probe = np.repeat(self.weights[_PROBE].reshape(1, -1), len(batch.lengths), axis=0)
        pooled = self._transformer.attention(probe, x, "head.attention.", batch)
        return pooled + self._transformer.mlp(
            self._transformer.norm(pooled, "head.layernorm"), "head.mlp.", batch.threads
        )


def _resized(positions: npt.NDArray[np.floating], rows: int, columns: int) -> Array:
    """Resize (S S, W) positions to (rows * columns, W), as torch does with mode="bilinear" and antialias."""
    side = math.isqrt(len(positions))
    grid = positions.reshape(side, side, -1)
    filters = _triangles(side, rows)
    if columns == 1 and rows != side:
        # torch 2.13 repeats the first row in a single column, and the vectors have to be those of torch.
        filters = np.repeat(filters[:1], rows, axis=0)
    down = np.tensordot(filters, grid, 1)
    across = np.einsum("cs,rsw->rcw", _triangles(side, columns), down)
    return np.asarray(across.reshape(rows * columns, -1), np.float32)


def _triangles(source: int, target: int) -> Array:
    """Return the (target, source) weights of old positions in each new one.

    The filter is a triangle that covers two old positions or, where there are fewer new ones, two of these.
    """
    scale = source / target
    width = max(scale, 1.0)
    centres = (np.arange(target) + 0.5)[:, np.newaxis] * scale
    distance = np.abs(np.arange(source) + 0.5 - centres) / width
    weights = np.maximum(0.0, 1.0 - distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
