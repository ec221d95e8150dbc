"""Trains the adapters of a model on pairs of texts and images: InfoNCE, and what should stay as it is.

Each step has a batch of own images and some of the control set. Its vectors are computed twice if they do not fit
into memory with what their gradients need: the loss of a batch needs all of its vectors, but gradients flow back from
a few at a time (GradCache, arXiv 2101.06983). So the size of a batch, and what is learned, do not depend on memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from clipsearch.system.interrupts import shielded
from clipsearch.tasks.tuning import checkpoint as checkpoints
from clipsearch.tasks.tuning.captioned import Batch, Pairs, together
from clipsearch.tasks.tuning.checkpoint import Checkpoint, State
from clipsearch.tasks.tuning.measuring import Score
from clipsearch.tasks.tuning.pictures import Pixels
from clipsearch.tasks.tuning.towers import Towers
from clipsearch.unit import Vectors

_log = logging.getLogger(__name__)

_OWN, _KNOWN, _WORDS = 64, 32, 64
"""Own images, pairs of the control set, and words of the vocabulary in each step."""
_RATE = 3e-3
_SHARPNESS = 0.4
"""The scale of cosines in the loss, as a share of the model's own logit scale. With less, pairs that are right already
still count, and images that were not trained with are found better."""
_SIDES = (0.6, 1.2)
"""Least and greatest length of the side of what is seen of an image, as a share of the image's."""
_TURN, _STRETCH, _SHEAR = 0.35, 0.25, 0.2
"""How far an image is turned at most (radians), stretched (logarithm of a factor) and sheared. On drawings of new
kinds, this and other light gave .02 to .03 more recall@5 than crops alone."""
_CONTRAST, _BRIGHTNESS = 0.3, 30.0
"""How far contrast (share) and brightness (levels) change at most."""
_EPOCHS, _LEAST_EPOCHS, _STEPS = 20, 3, 1000
"""How often each own image is seen by default: 20 times, or as often as fits into 1,000 steps, or 3 times."""
_WARM_UP = 0.1
"""The share of the steps at the beginning in which the rate rises. Afterwards it falls as a cosine does."""
_MOMENTS = (0.9, 0.98)
"""Adam's decay rates."""
_EVALUATIONS = 20
"""How often the images to choose on are looked at."""
_PATIENCE = 5
"""The training ends when so many evaluations in a row were no better than the best."""
_HOLD = 2.0
"""Factor of the penalty for moving vectors that should stay."""
METHOD = 3
"""Another number for another result from the same input."""
_FAR = -1e4
"""A logit whose exponential is nothing."""
_OF_ADAM = ("exp_avg", "exp_avg_sq")
_FACTS = ("done", "looked", "waited", "loss", "best")
"""The attributes of a training that a checkpoint has besides tensors."""


class Material(NamedTuple):
    """What is learned from. Texts and images of the control set are among the others."""

    texts: list[Sequence[int]]
    """(Q) ids of the tokens of each text."""
    images: Pixels
    own: Pairs
    """Those of captions, each image in one at least."""
    new: Pairs
    """Those of new words with these images."""
    known: Pairs
    """Those of the control set."""
    words: list[Sequence[int]]
    """Texts of the vocabulary, which should stay where they are."""


class _Drawn(NamedTuple):
    """What one step has."""

    batch: Batch
    ids: npt.NDArray[np.int64]
    """(Q + W,) numbers of the texts of the batch and of words, which come after all texts."""
    levels: torch.Tensor | None
    """(N, 3, H, W) the images of the batch; None if their vectors stay."""


class Step(NamedTuple):
    """Where a training is."""

    done: int
    total: int
    loss: float
    """Mean loss of the last steps."""
    best: Score
    """The best score on the images to choose on."""


class Training:
    """One training, which may have begun in an earlier process."""

    def __init__(
        self, towers: Towers, material: Material, checkpoint: Checkpoint, *, epochs: int | None, seed: int
    ) -> None:
        """Begin, or go on where the checkpoint is.

        Args:
            towers: the model.
            material: what is learned from.
            checkpoint: where the state is kept.
            epochs: how often each own image is seen at most; by default 20 times, or fewer if that were many steps.
            seed: that of the order, and of how images are changed.

        Raises:
            InputError: the checkpoint is of another run.
        """
        self._towers, self._material, self._checkpoint = towers, material, checkpoint
        self._seed = seed
        self._own = material.own[np.argsort(material.own[:, 1], kind="stable")]
        self._own_images, first = np.unique(self._own[:, 1], return_index=True)
        self._first = np.append(first, len(self._own))
        self._steps = math.ceil(len(self._own_images) / _OWN)
        self.total = (epochs or min(_EPOCHS, max(_LEAST_EPOCHS, _STEPS // self._steps))) * self._steps
        self._parameters = towers.parameters
        self._optimizer = torch.optim.AdamW(self._parameters.values(), _RATE, _MOMENTS, weight_decay=0.0)
        self._pairs = np.concatenate([material.own, material.new, material.known])
        # 1. Vectors as they are before any training: what stays is compared with them, or is not computed again.
        towers.mix(0)
        self._old_texts = self._tensor(towers.all_texts([*material.texts, *material.words]))
        known = np.unique(material.known[:, 1])
        count = len(material.images.rows)
        needed = known if towers.changes_images else np.arange(count)
        images = np.zeros((count, self._old_texts.shape[1]), np.float32)
        images[needed] = towers.all_images(material.images._replace(rows=material.images.rows[needed]))
        self._old_images = self._tensor(images)
        towers.mix(1)
        self._known_texts, self._known_images = (np.unique(material.known[:, side]) for side in (0, 1))
        # 2. Where the training is.
        self._done, self._looked, self._waited, self._loss = 0, -1, 0, math.nan
        self._best = Score(0.0, 0.0, 0.0)
        self._kept = {name: value.detach().clone() for name, value in self._parameters.items()}
        if state := checkpoint.load():
            self._resume(state)

    def run(self, evaluate: Callable[[], Score], on_step: Callable[[Step], None]) -> None:
        """Train to the end, and leave the weights that were best.

        Args:
            evaluate: returns the score of the model as it is now, on the images to choose on.
            on_step: is called after each step.

        Raises:
            OSError: a checkpoint cannot be written.
        """
        saved = monotonic()
        every = max(1, self.total // _EVALUATIONS)
        try:
            while True:
                if self._looked < self._done and (self._done % every == 0 or self._done == self.total):
                    self._compare(evaluate())
                if self._done == self.total or self._waited == _PATIENCE or not self.step():
                    break
                on_step(Step(self._done, self.total, self._loss, self._best))
                if monotonic() - saved >= checkpoints.SECONDS:
                    self._save()
                    saved = monotonic()
        except KeyboardInterrupt:
            self._save()
            _log.warning("Stopped after step %d of %d; the same command goes on from there.", self._done, self.total)
            raise
        self._save()  # what comes after the training takes long, too
        self._take(self._kept)

    def _compare(self, score: Score) -> None:
        """Keep the weights if they are better than those before."""
        is_better = self._looked < 0 or score.mrr > self._best.mrr
        now = {name: value.detach().clone() for name, value in self._parameters.items()} if is_better else self._kept
        with shielded():
            self._kept, self._best = now, score if is_better else self._best
            self._waited = 0 if is_better else self._waited + 1
            self._looked = self._done

    def step(self) -> bool:
        """Make a step; return whether there was one to make: not if the loss is no number."""
        for group in self._optimizer.param_groups:
            group["lr"] = _RATE * _share(self._done, self.total)
        self._optimizer.zero_grad()
        loss = self._backward(self._drawn())
        if not math.isfinite(loss):
            _log.warning("The training ends after step %d of %d: its loss is %s.", self._done, self.total, loss)
            return False
        with shielded():
            self._optimizer.step()
            self._done += 1
            self._loss = loss if math.isnan(self._loss) else 0.9 * self._loss + 0.1 * loss
        return True

    def _drawn(self) -> _Drawn:
        """Draw what the next step has; the same whenever it is made."""
        material = self._material
        epoch, place = divmod(self._done, self._steps)
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._own_images))
        images = order[place * _OWN : (place + 1) * _OWN]
        rng = np.random.default_rng((self._seed, epoch, place))
        # 1. A caption of each image and its new words, captions of the control set, and words of the vocabulary.
        first, count = self._first[images], self._first[images + 1] - self._first[images]
        own = self._own[first + (rng.random(len(images)) * count).astype(np.int64)]
        new = material.new[np.isin(material.new[:, 1], own[:, 1])]
        known = material.known[rng.permutation(len(material.known))[:_KNOWN]]
        batch = together(np.concatenate([own, new, known]), self._pairs)
        words = rng.permutation(len(material.words))[:_WORDS]
        ids = np.concatenate([batch.texts, len(material.texts) + words])
        if not self._towers.changes_images:
            return _Drawn(batch, ids, None)
        # 2. Images of which there are few look different each time.
        levels = self._towers.levels(material.images.of(batch.images))
        few = np.flatnonzero(np.isin(batch.images, own[:, 1]) & ~np.isin(batch.images, self._known_images))
        levels[few] = _varied(levels[few], rng)
        return _Drawn(batch, ids, levels)

    def _backward(self, drawn: _Drawn) -> float:
        """Compute the loss, and its gradients by the weights of the adapters."""
        towers, (batch, ids, levels) = self._towers, drawn
        # 1. What is computed at a time. What no adapter changes is known.
        every_text = [*self._material.texts, *self._material.words]
        of_texts = _portions(len(ids), towers.most_texts) if towers.changes_texts else []
        of_images = [] if levels is None else _portions(len(levels), towers.most_images)

        def texts(some: slice) -> torch.Tensor:
            return towers.texts([every_text[i] for i in ids[some]])

        def images(some: slice) -> torch.Tensor:
            return towers.images(levels[some])  # type: ignore[index]  # there are no portions without them

        # 2. Vectors, and the loss.
        at_once = len(of_texts) <= 1 and len(of_images) <= 1
        with torch.set_grad_enabled(at_once):
            vectors = [
                torch.cat([embed(some) for some in portions]) if portions else old[rows]
                for embed, portions, old, rows in (
                    (texts, of_texts, self._old_texts, ids),
                    (images, of_images, self._old_images, batch.images),
                )
            ]
        if not at_once:
            for found in vectors:
                found.requires_grad_()
        loss = self._loss_of(vectors[0], vectors[1], batch, ids)
        torch.autograd.backward(loss)
        # 3. Back through the towers, a portion at a time.
        if not at_once:
            for embed, portions, found in zip((texts, images), (of_texts, of_images), vectors, strict=True):
                for some in portions:
                    torch.autograd.backward(embed(some), found.grad[some] if found.grad is not None else None)
        return float(loss.detach())

    def _loss_of(
        self, texts: torch.Tensor, images: torch.Tensor, batch: Batch, ids: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        """Return the loss of (Q + W, D) vectors of texts and words, and (N, D) vectors of images."""
        # 1. Each pair competes with what is wrong for its text or its image, and not with other pairs.
        scores = _SHARPNESS * self._towers.scale * texts[: len(batch.texts)] @ images.T
        rows, columns, wrong = (torch.from_numpy(one).to(scores.device) for one in batch[2:])
        right = scores[rows, columns]
        others = scores.masked_fill(~wrong, _FAR)
        loss = -right.mean()
        for axis, own in ((1, rows), (0, columns)):
            loss = loss + torch.logaddexp(right, others.logsumexp(axis)[own]).mean() / 2
        # 2. What should stay: the mean square of how far its vectors move.
        for vectors, old, given, stays in (
            (texts, self._old_texts, ids, np.isin(ids, self._known_texts) | (ids >= len(self._material.texts))),
            (images, self._old_images, batch.images, np.isin(batch.images, self._known_images)),
        ):
            if stays.any():
                held = torch.from_numpy(stays)
                off = vectors[held] - old[torch.from_numpy(given[stays])]
                loss = loss + _HOLD * off.square().sum(1).mean()
        return loss

    def _tensor(self, vectors: Vectors) -> torch.Tensor:
        return torch.from_numpy(vectors).to(self._towers.device)

    # -- what is kept ------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        tensors: dict[str, torch.Tensor] = {}
        for name, value in self._parameters.items():
            tensors[f"now.{name}"], tensors[f"best.{name}"] = value, self._kept[name]
            for kind in _OF_ADAM:
                tensors[f"{kind}.{name}"] = self._optimizer.state[value].get(kind, torch.zeros_like(value))
        facts = {name: getattr(self, f"_{name}") for name in _FACTS}
        self._checkpoint.save(State(tensors, facts))

    def _resume(self, state: State) -> None:
        for name in _FACTS:
            setattr(self, f"_{name}", state.facts[name])
        self._best = Score(*self._best)
        self._take({name: state.tensors[f"now.{name}"] for name in self._parameters})
        for name, value in self._parameters.items():
            self._kept[name] = state.tensors[f"best.{name}"].to(value)
            if self._done:
                moments = {kind: state.tensors[f"{kind}.{name}"].to(value) for kind in _OF_ADAM}
                self._optimizer.state[value] = {"step": torch.tensor(float(self._done)), **moments}
        _log.info("training: goes on after step %d of %d", self._done, self.total)

    @torch.no_grad()
    def _take(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, value in self._parameters.items():
            value.copy_(weights[name])


def _share(done: int, total: int) -> float:
    """Return the share of the rate for the step after `done` of `total` steps."""
    rising = (done + 1) / (_WARM_UP * total)
    return min(1.0, rising) * (1 + math.cos(math.pi * done / total)) / 2


def _portions(count: int, most: int) -> list[slice]:
    return [slice(at, at + most) for at in range(0, count, most)]


def _varied(levels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Turn, stretch, shear, enlarge or reduce each of (B, 3, H, W) images at random, and change its light.

    Beyond the edges of an image its outermost pixels go on.
    """
    count = len(levels)

    def drawn(least: float, most: float) -> npt.NDArray[np.float64]:
        return rng.uniform(least, most, count)

    # 1. Where each pixel comes from.
    side, turn, shear = drawn(*_SIDES), drawn(-_TURN, _TURN), drawn(-_SHEAR, _SHEAR)
    stretch = np.exp(drawn(-_STRETCH, _STRETCH))
    cosine, sine = np.cos(turn), np.sin(turn)
    matrix = np.empty((count, 2, 3))
    matrix[:, 0, :2] = np.stack([cosine * stretch, -sine], axis=1) * side[:, np.newaxis]
    matrix[:, 1, :2] = np.stack([sine + shear, cosine / stretch], axis=1) * side[:, np.newaxis]
    for axis in (0, 1):
        matrix[:, axis, 2] = drawn(-1, 1) * np.abs(1 - side)
    grid = functional.affine_grid(torch.from_numpy(matrix), [*levels.shape], align_corners=False).to(levels)
    moved = functional.grid_sample(levels, grid, padding_mode="border", align_corners=False)
    # 2. Contrast and brightness.
    contrast, brightness = (
        torch.from_numpy(values).to(moved)[:, np.newaxis, np.newaxis, np.newaxis]
        for values in (drawn(1 - _CONTRAST, 1 + _CONTRAST), drawn(-_BRIGHTNESS, _BRIGHTNESS))
    )
    mean = moved.mean((1, 2, 3), keepdim=True)
    return ((moved - mean) * contrast + mean + brightness).clamp(0, 255)
