"""Benchmark of `clipsearch score --map`: how often a map's best patch lies on the thing that the text names.

`picturebook` draws pictures whose things have known boxes: one thing, in combinations that training held out, or two
kinds of things, of which the text names one. A map points right if the centre of its best patch is in a box of what is
named. The same is measured for other published ways to get a vector for each patch without training, for the middle
of the picture, and for chance, the area of the boxes. Run it with:

    python scripts/bench_map.py [--regions FOLDER]

With `--regions`, pictures of many things are measured too: those of `python -m scripts.picturebook regions FOLDER`.
It takes some minutes, and needs the package, scripts/picturebook and its font (see its README).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import bench_common as common
import numpy as np
import numpy.typing as npt
from picturebook.data import scene_of
from picturebook.render import render
from picturebook.samples import noun_phrase
from picturebook.scene import Entity, Scene
from PIL import Image

import clipsearch
from clipsearch.models.in_numpy.activations import ACTIVATIONS
from clipsearch.models.in_numpy.image_tower import ImageTower
from clipsearch.models.preprocessing import Preprocessing
from clipsearch.search.embedder import Embedder

SIDE = 320
"""Side of a picture in pixels before it is resized for the model."""
SMALL = 0.1
"""Area of a small thing at most, as a share of its picture."""
TOGETHER = 50
"""Number of pictures that are computed together."""
SHIPPED = "SCLIP: likeness of queries + of keys"
Numbers = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Asked:
    """One text about one picture."""

    picture: int
    text: str
    boxes: list[Box]
    """Boxes of what is named: left, top, right and bottom in fractions of the picture."""
    group: str
    area: float
    """Area of the boxes together, as a share of the picture."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=400, help="pictures of each set (default %(default)s)")
    parser.add_argument(
        "--regions", type=Path, metavar="FOLDER", help="measure also what picturebook's `regions` has drawn"
    )
    options = parser.parse_args()
    with clipsearch.load_model("picturebook") as model:
        of = model.image_tower.preprocessing
        result = {"drawn": measure(model, *drawn(options.pictures, of))}
        if options.regions:
            result["regions"] = measure(model, *crowded(options.regions, of))
    common.finish(machine=common.machine(), **result)


def measure(model: Embedder, pixels: list[Pixels], asked: list[Asked]) -> dict[str, Any]:
    """Print and return how often each way points right."""
    # 1. The maps that ship, and other ways, of which one has to be the same.
    tower = model.image_tower
    names = sorted({one.text for one in asked})
    texts = dict(zip(names, model.embed_texts(names), strict=True))
    patches = np.stack([tower.patch_vectors(image) for image in pixels]).reshape(len(pixels), -1, tower.dim)
    ways = dict(others(tower, pixels))
    np.testing.assert_allclose(ways[SHIPPED], patches, atol=1e-5)
    # 2. Where they point.
    right = {name: points_right(vectors, asked, texts) for name, vectors in ways.items()}
    right["the middle of the picture"] = np.array([is_inside((0.5, 0.5), one.boxes) for one in asked])
    groups = {group: np.array([one.group == group for one in asked]) for group in unique(one.group for one in asked)}
    groups["small"] = np.array([one.area < SMALL for one in asked])
    chance = np.array([one.area for one in asked])
    figures = {name: shares(flags, groups) for name, flags in {"chance": chance, **right}.items()}
    show(figures, groups, right)
    return {
        "texts": {name: int(members.sum()) for name, members in groups.items()},
        "pointing": figures,
        "present": presence(patches, tower.encode_images(pixels), asked, texts),
    }


# -- pictures ------------------------------------------------------------------------------------------------


def drawn(number: int, prepared: Preprocessing) -> tuple[list[Pixels], list[Asked]]:
    """Draw `number` pictures of one kind of thing and as many of two, and ask for each kind."""
    pixels: list[Pixels] = []
    asked: list[Asked] = []
    for split, kinds in (("test", 1), ("pairs", 2)):  # of any other name than "train" and "test", all combinations
        some = ((scene, rng) for scene, rng in map(partial(scene_of, split), itertools.count()) if has(scene, kinds))
        for scene, rng in itertools.islice(some, number):
            drawing = render(scene, rng, SIDE)
            for place, entity in enumerate(scene.entities):
                boxes = [box for figure, box in drawing.figures if figure == place]
                group = "one thing" if kinds == 1 else "one of two"
                asked.append(Asked(len(pixels), named(entity), boxes, group, area(boxes)))
            pixels.append(prepared(drawing.picture))
    return pixels, asked


def crowded(folder: Path, prepared: Preprocessing) -> tuple[list[Pixels], list[Asked]]:
    """Read the pictures of many things that `picturebook regions` has drawn, in each of which one is asked for."""
    pixels: list[Pixels] = []
    asked: list[Asked] = []
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            with Image.open(folder / row["image"]) as image:
                pixels.append(prepared(image.convert("RGB")))
                left, right = (int(row[edge]) / image.width for edge in ("left", "right"))
                top, bottom = (int(row[edge]) / image.height for edge in ("top", "bottom"))
            boxes = [(left, top, right, bottom)]
            asked.append(Asked(len(asked), row["caption"], boxes, row["size"], area(boxes)))
    return pixels, asked


def has(scene: Scene, kinds: int) -> bool:
    """Whether a scene has one entity, or two of different kinds."""
    return len(scene.entities) == kinds == len({entity.kind for entity in scene.entities})


def named(entity: Entity) -> str:
    """Name what an entity shows, without its number: each figure alone is in a box."""
    return noun_phrase(Entity(entity.kind, 1, None, entity.colour))


def area(boxes: Sequence[Box]) -> float:
    """Return the area of boxes together, by a grid of points."""
    at = (np.arange(200) + 0.5) / 200
    covered = np.zeros((200, 200), np.bool_)
    for left, top, right, bottom in boxes:
        covered |= ((at > top) & (at < bottom))[:, None] & ((at > left) & (at < right))
    return float(covered.mean())


def unique(names: Iterable[str]) -> list[str]:
    """Return each name once, in order."""
    return list(dict.fromkeys(names))


# -- vectors of patches --------------------------------------------------------------------------------------


def others(tower: ImageTower, pixels: Sequence[Pixels]) -> Iterator[tuple[str, Numbers]]:
    """Yield the (N, T, D) unit vectors of patches by each way to treat the last layer, computed here from its input."""
    parts = [tower.hidden_states(pixels[i : i + TOGETHER], tower.depth - 1) for i in range(0, len(pixels), TOGETHER)]
    last = Layer(tower, np.concatenate(parts))
    alone, neighbours = np.eye(last.x.shape[1], dtype=np.float32), nearness(last.x.shape[1])
    attention: dict[str, Callable[[], Numbers]] = {
        "as it is": lambda: last.attended(last.weights("q", "k")),
        "MaskCLIP: each patch alone": lambda: last.attended(alone),
        "CLIP Surgery: likeness of values": lambda: last.attended(last.weights("v", "v")),
        "ClearCLIP: likeness of queries": lambda: last.attended(last.weights("q", "q")),
        "NACLIP: likeness of keys, near ones": lambda: last.attended(last.weights("k", "k", neighbours)),
        SHIPPED: lambda: last.attended(last.weights("q", "q") + last.weights("k", "k")),
    }
    for name, attend in attention.items():
        out = attend()
        yield name, last.projected(out)
        yield f"{name}, with input and MLP", last.projected(last.finished(out))


class Layer:
    """The last layer of a CLIP, and what follows it, on the (N, T, W) input `x`."""

    def __init__(self, tower: ImageTower, x: Numbers) -> None:
        self.x = x
        self._of = tower.weights
        self._name = f"encoder.layers.{tower.depth - 1}."
        self._shape = tower.shape
        seen = self._norm(x, f"{self._name}layer_norm1")
        self._parts = {part: self._split(self._linear(seen, f"{self._name}self_attn.{part}_proj")) for part in "qkv"}

    def weights(self, asking: str, asked: str, more: Numbers | None = None) -> Numbers:
        """Return (N, heads, T, T) attention; `more` is added before the softmax."""
        one, other = self._parts[asking], self._parts[asked]
        scores = one @ other.swapaxes(2, 3) / math.sqrt(one.shape[-1]) + (0 if more is None else more)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(scores / scores.sum(axis=-1, keepdims=True), np.float32)

    def attended(self, weights: Numbers) -> Numbers:
        """Return the (N, T, W) output of the attention."""
        gathered = (weights @ self._parts["v"]).swapaxes(1, 2).reshape(self.x.shape)
        return self._linear(gathered, f"{self._name}self_attn.out_proj")

    def finished(self, out: Numbers) -> Numbers:
        """Return the output of the layer: the attention's with the input, and the MLP's with both."""
        out = out + self.x
        inner = self._linear(self._norm(out, f"{self._name}layer_norm2"), f"{self._name}mlp.fc1")
        return out + self._linear(ACTIVATIONS[self._shape.activation](inner), f"{self._name}mlp.fc2")

    def projected(self, out: Numbers) -> Numbers:
        """Return (N, T - 1, D) unit vectors of the patches."""
        vectors = self._norm(out[:, 1:], "post_layernorm") @ self._of["visual_projection.weight"].T
        return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))

    def _split(self, x: Numbers) -> Numbers:
        return x.reshape(*x.shape[:2], self._shape.heads, -1).swapaxes(1, 2)

    def _linear(self, x: Numbers, name: str) -> Numbers:
        return np.asarray(x @ self._of[f"{name}.weight"].T + self._of[f"{name}.bias"])

    def _norm(self, x: Numbers, name: str) -> Numbers:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self._shape.layer_norm_eps)
        return np.asarray(centred / spread * self._of[f"{name}.weight"] + self._of[f"{name}.bias"], np.float32)


def nearness(tokens: int, sigma: float = 1.0) -> Numbers:
    """Return the (T, T) Gaussian of the distance between patches; `sigma` in patches, 0 for the class token."""
    side = math.isqrt(tokens - 1)
    rows, columns = np.divmod(np.arange(side * side), side)
    distance = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    near = np.zeros((tokens, tokens), np.float32)
    near[1:, 1:] = np.exp(-distance / (2 * sigma**2))
    return near


# -- judgement -----------------------------------------------------------------------------------------------


def points_right(vectors: Numbers, asked: Sequence[Asked], texts: dict[str, Numbers]) -> Flags:
    """Return for each text whether the centre of the best of (N, T, D) patches is in a box."""
    side = math.isqrt(vectors.shape[1])
    best = (int((vectors[one.picture] @ texts[one.text]).argmax()) for one in asked)
    centres = (((patch % side + 0.5) / side, (patch // side + 0.5) / side) for patch in best)
    return np.array([is_inside(centre, one.boxes) for centre, one in zip(centres, asked, strict=True)])


def is_inside(point: tuple[float, float], boxes: Sequence[Box]) -> bool:
    """Whether a point is in one of the boxes."""
    return any(left <= point[0] <= right and top <= point[1] <= bottom for left, top, right, bottom in boxes)


def shares(values: npt.NDArray[Any], groups: dict[str, Flags]) -> dict[str, float]:
    """Return the mean of each group, and of all."""
    return {
        "all": round(float(values.mean()), 3),
        **{name: round(float(values[members].mean()), 3) for name, members in groups.items()},
    }


def presence(patches: Numbers, whole: Numbers, asked: Sequence[Asked], texts: dict[str, Numbers]) -> dict[str, float]:
    """Return how well the best patch, and the score of the whole, tell texts about a picture from others.

    That is the chance (AUC) that a text about a picture has more than a text about the picture before it.
    """
    wrong = [
        one for one in asked if one.text not in {other.text for other in asked if other.picture == one.picture - 1}
    ]

    def auc(value: Callable[[int, str], float]) -> float:
        yes = np.array([value(one.picture, one.text) for one in asked])
        no = np.array([value(one.picture - 1, one.text) for one in wrong])
        return round(float((yes[:, None] > no).mean()), 3)

    return {
        "best patch": auc(lambda picture, text: float((patches[picture] @ texts[text]).max())),
        "score": auc(lambda picture, text: float(whole[picture] @ texts[text])),
    }


def show(figures: dict[str, dict[str, float]], groups: dict[str, Flags], right: dict[str, Flags]) -> None:
    """Print the table; at its end, how often another way is right where what ships is wrong, and vice versa."""
    counts = {"all": len(right[SHIPPED]), **{name: int(members.sum()) for name, members in groups.items()}}
    print(f"{'':<58}" + "".join(f"{name} ({count})".rjust(18) for name, count in counts.items()))
    for name, row in figures.items():
        line = f"{name:<58}" + "".join(f"{figure:18.3f}" for figure in row.values())
        if name in right:
            gained, lost = right[name] & ~right[SHIPPED], right[SHIPPED] & ~right[name]
            line += f"   +{gained.sum()} -{lost.sum()}"
        print(line)


if __name__ == "__main__":
    main()
