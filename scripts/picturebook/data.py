"""The training set: pictures drawn from numbered seeds, so that any number of workers draws the same ones.

Only pixels and patch maps are stored. Picture i of a split is `random_scene(Random(f"{split}-{i}"))`, so scenes
are made again from their numbers, and captions are written afresh for every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from tqdm import tqdm

from .model import GRID, SIDE
from .render import Drawing, render
from .scene import Scene, random_scene

_CHUNK = 500


def scene_of(split: str, number: int) -> tuple[Scene, Random]:
    """Scene `number` of a split, and the generator that goes on to draw it."""
    rng = Random(f"{split}-{number}")
    return random_scene(rng, split), rng


def small_picture(drawing: Drawing) -> np.ndarray:
    """(96, 96, 3) uint8, resized as CLIP's preprocessing does (bicubic, antialiased)."""
    return np.asarray(drawing.picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def patch_map(drawing: Drawing) -> np.ndarray:
    """(36,) uint8: for each patch 0, or 1 + the number of the entity whose figure covers it."""
    grid = np.zeros((GRID, GRID), np.uint8)
    centres = (np.arange(GRID) + 0.5) / GRID
    for number, (left, top, right, bottom) in drawing.figures:
        inside = ((centres > top) & (centres < bottom))[:, None] & ((centres > left) & (centres < right))[None]
        grid[inside] = number + 1
    return grid.ravel()


def _chunk(job: tuple[str, int]) -> tuple[int, np.ndarray, np.ndarray]:
    split, first = job
    pictures = np.empty((_CHUNK, SIDE, SIDE, 3), np.uint8)
    grids = np.empty((_CHUNK, GRID * GRID), np.uint8)
    for i in range(_CHUNK):
        scene, rng = scene_of(split, first + i)
        drawing = render(scene, rng, 192)
        pictures[i], grids[i] = small_picture(drawing), patch_map(drawing)
    return first, pictures, grids


def draw(folder: Path, count: int, workers: int = 2) -> None:
    """Draw the first `count` training pictures into `folder` (28 kB each)."""
    folder.mkdir(parents=True, exist_ok=True)
    count -= count % _CHUNK
    opened = np.lib.format.open_memmap
    pictures = opened(folder / "pictures.npy", "w+", np.uint8, (count, SIDE, SIDE, 3))
    grids = opened(folder / "grids.npy", "w+", np.uint8, (count, GRID * GRID))
    jobs = [("train", first) for first in range(0, count, _CHUNK)]
    with get_context("spawn").Pool(workers) as pool, tqdm(total=count, unit="picture", mininterval=5) as bar:
        for first, some, maps in pool.imap_unordered(_chunk, jobs):
            pictures[first : first + _CHUNK], grids[first : first + _CHUNK] = some, maps
            bar.update(_CHUNK)
    pictures.flush()
    grids.flush()


@dataclass(frozen=True)
class Corpus:
    """The drawn training set; item i of each field is picture i."""

    pictures: np.ndarray
    grids: np.ndarray
    scenes: list[Scene]

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """What `draw` left in `folder`."""
        pictures = np.load(folder / "pictures.npy", mmap_mode="r")
        grids = np.load(folder / "grids.npy", mmap_mode="r")
        return cls(pictures, grids, [scene_of("train", i)[0] for i in range(len(pictures))])
