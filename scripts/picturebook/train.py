"""Training: contrastive, with what is known about every scene put to use.

Beyond CLIP's own loss:

1. A caption that happens to be true of another picture of the batch is not a negative for it (facts decide).
2. Half of the captions bring a hard negative along: the same scene with one thing changed.
3. Throw-away heads predict facts from both towers and, patch by patch, what is drawn there.
4. The last `PRACTICE` steps add brief captions, such as people type ("a running dog"), and pull every caption towards
   all the pictures of the batch that it is true of, not only its own. Until then the model reads long captions well
   and short ones badly: few pictures of a batch tell "a dog" from "a fox" when all the rest of a caption differs too.
5. While the learning rate is constant the image tower sees only the patches with most ink on them; the last part of
   the training, in which the rate falls to zero, shows it whole pictures.

The rate is constant until `steps - decay`, so a run can be stopped and a longer or shorter one taken up from its last
checkpoint with the same result as if it had been planned that way.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional

from .canvas import COLOURS
from .caption import VERBS, describe, describe_briefly
from .data import Corpus
from .evaluate import held_out, retrieval
from .model import PATCH, RELEASED, SECOND, Shape, Words, load_tokenizer, new_model, pixels, train_tokenizer
from .muon import Muon
from .places import PLACES
from .scene import ANY, KINDS, QUADRUPEDS, Entity, Scene, facts_of

BATCH = 256
KEPT_PATCHES = 22
GROUP = 4
"""Number of pictures of one kind in a batch, which are the hardest negatives of each other."""
MUON_RATE, ADAM_RATE = 2e-3, 1e-3
WARM_UP = 100
PRACTICE = 600
CHECKPOINT_EVERY = 50
_NOTHING = -100
"""The class index that torch's cross entropy leaves out."""
_ACTIONS = {action: i for i, action in enumerate(VERBS)}
_COLOURS = {colour: i for i, colour in enumerate(COLOURS)}
_KIND_IDS = {kind: i + 1 for i, kind in enumerate(KINDS)}


def simple_facts(facts: frozenset[str]) -> set[str]:
    """Conjunctions taken apart: "dog|2|brown|*" is "dog", "dog|2" and "dog|brown"."""
    out = set()
    for fact in facts:
        base, *parts = fact.split("|")
        out.add(base)
        out.update(f"{base}|{i}{part}" for i, part in enumerate(parts) if part != ANY)
    return out


def fact_vocabulary(corpus: Corpus) -> dict[str, int]:
    """The simple facts common enough to learn a head for."""
    counts: Counter[str] = Counter()
    for scene in corpus.scenes[:30_000]:
        counts.update(simple_facts(facts_of(scene)))
    return {fact: i for i, (fact, n) in enumerate(counts.most_common()) if n >= 20}


def hard_negative(scene: Scene, rng: Random) -> Scene:
    """`scene` with one thing changed, swaps between its two entities included."""
    changes = ["place", "time"]
    for i, entity in enumerate(scene.entities):
        kind = KINDS[entity.kind]
        changes += [f"action {i}"] * 3 * (len(kind.actions) > 1) + [f"colour {i}"] * 2 * (len(kind.colours) > 1)
        changes += [f"count {i}", f"kind {i}"]
    if len(scene.entities) == 2:
        changes += ["swap"] * 4
    change = rng.choice(changes)
    if change == "place":
        return replace(scene, place=rng.choice([place for place in PLACES if place != scene.place]))
    if change == "time":
        return replace(scene, time=rng.choice([time for time in ("day", "night", "sunset") if time != scene.time]))
    if change == "swap":
        return replace(scene, entities=_swapped(*scene.entities, rng))
    what, _, index = change.partition(" ")
    changed = list(scene.entities)
    changed[int(index)] = _altered(changed[int(index)], what, rng)
    return replace(scene, entities=tuple(changed))


def _swapped(one: Entity, two: Entity, rng: Random) -> tuple[Entity, Entity]:
    """The two with colours, actions or counts exchanged, as far as their kinds allow."""
    ways = []
    if one.colour and two.colour and one.colour != two.colour:
        ways.append((replace(one, colour=two.colour), replace(two, colour=one.colour)))
    can = one.action in KINDS[two.kind].actions and two.action in KINDS[one.kind].actions
    if can and one.action != two.action:
        ways.append((replace(one, action=two.action), replace(two, action=one.action)))
    if one.count != two.count:
        ways.append((replace(one, count=two.count), replace(two, count=one.count)))
    return rng.choice(ways) if ways else (_altered(one, "kind", rng), two)


def _altered(entity: Entity, what: str, rng: Random) -> Entity:
    kind = KINDS[entity.kind]
    if what == "action":
        return replace(entity, action=rng.choice([a for a in kind.actions if a != entity.action]))
    if what == "colour":
        return replace(entity, colour=rng.choice([c for c in kind.colours if c != entity.colour]))
    if what == "count":
        return replace(entity, count=rng.choice([n for n in (1, 2, 3, 4) if n != entity.count]))
    alike = [
        other.name
        for other in KINDS.values()
        if other.name != kind.name and (other.draw is None) == (kind.draw is None)
        and (other.hypernyms[:1] == kind.hypernyms[:1] or rng.random() < 0.2)
    ]  # fmt: skip
    return replace(entity, kind=rng.choice(alike)) if alike else entity


@dataclass
class Batch:
    """What one step sees; T = B captions, the brief ones if any, and the hard negatives."""

    pixels: torch.Tensor
    """(B, 3, 96, 96) float32."""
    tokens: torch.Tensor
    """(T, L) int64."""
    true: torch.Tensor
    """(T, B) bool: caption t is true of picture b."""
    negatives: int
    """Number of hard negatives among the T captions."""
    picture_facts: torch.Tensor
    """(B, F) float32 zeros and ones."""
    caption_facts: torch.Tensor
    """(B, F) float32 zeros and ones."""
    patches: torch.Tensor
    """(B, 36, 3) int64: kind (0 nothing), action and colour of each patch."""


def _multi_hot(facts: set[str], vocabulary: dict[str, int]) -> np.ndarray:
    row = np.zeros(len(vocabulary), np.float32)
    row[[vocabulary[fact] for fact in facts if fact in vocabulary]] = 1
    return row


def _patch_targets(scene: Scene, grid: np.ndarray) -> np.ndarray:
    figures = [
        (_KIND_IDS[e.kind], _ACTIONS.get(e.action or "", _NOTHING), _COLOURS.get(e.colour or "", _NOTHING))
        for e in scene.entities
    ]
    return np.array([(0, _NOTHING, _NOTHING), *figures])[grid]


def make_batch(
    corpus: Corpus, numbers: list[int], words: Words, vocabulary: dict[str, int], rng: Random, *, practice: bool
) -> Batch:
    """Pictures `numbers`, with fresh captions and hard negatives, and brief captions in practice."""
    scenes = [corpus.scenes[i] for i in numbers]
    captions, brief, negatives = [], [], []
    for i, scene in enumerate(scenes):
        seed = rng.random()
        captions.append(describe(scene, Random(seed)))
        if i % 2 == 0:
            # Mostly in the same words, so that only the change tells the two apart.
            negatives.append(describe(hard_negative(scene, rng), Random(seed) if rng.random() < 0.7 else rng))
        elif practice:
            brief.append(describe_briefly(scene, rng))
    texts = captions + brief + negatives
    claims = [facts for _, facts in texts]
    known = [facts_of(scene) for scene in scenes]
    true = np.array([[claim <= facts for facts in known] for claim in claims])
    return Batch(
        pixels(np.stack([corpus.pictures[i] for i in numbers])),
        words(text for text, _ in texts),
        torch.from_numpy(true),
        len(negatives),
        torch.from_numpy(np.stack([_multi_hot(simple_facts(facts), vocabulary) for facts in known])),
        torch.from_numpy(np.stack([_multi_hot(simple_facts(facts), vocabulary) for _, facts in captions])),
        torch.from_numpy(np.stack([_patch_targets(corpus.scenes[i], corpus.grids[i]) for i in numbers])),
    )


def _in_groups(numbers: Iterable[int], key: Callable[[int], object], rng: Random) -> list[int]:
    """`numbers` shuffled, in groups of up to `GROUP` that have the same key."""
    alike: dict[object, list[int]] = {}
    for i in numbers:
        alike.setdefault(key(i), []).append(i)
    groups = []
    for members in alike.values():
        rng.shuffle(members)
        groups += [members[i : i + GROUP] for i in range(0, len(members), GROUP)]
    rng.shuffle(groups)
    return [i for group in groups for i in group]


def _kind_of(corpus: Corpus, rng: Random) -> Callable[[int], object]:
    """The kind of a picture, of one of its entities if it has two."""
    return lambda i: rng.choice(corpus.scenes[i].entities).kind


def batches(corpus: Corpus, start: int) -> Iterator[list[int]]:
    """The picture numbers of step `start` and of every later step: all pictures, in groups of one kind."""
    per_epoch = len(corpus.scenes) // BATCH
    epoch, step = divmod(start, per_epoch)
    while True:
        rng = Random(f"epoch-{epoch}")
        order = _in_groups(range(len(corpus.scenes)), _kind_of(corpus, rng), rng)
        for i in range(step, per_epoch):
            yield order[i * BATCH : (i + 1) * BATCH]
        epoch, step = epoch + 1, 0


def focused_batches(corpus: Corpus, start: int) -> Iterator[list[int]]:
    """The same for the last training: half of each batch are four-legged animals that do the same in one colour.

    Dog, cat, horse, goat and wolf differ by ears, snout and tail, a few pixels each; among so many others of their
    pose and colour nothing else is left to tell them apart by.
    """
    rng = Random(f"focus-{start}")
    animals = [i for i, scene in enumerate(corpus.scenes) if scene.entities[0].kind in QUADRUPEDS]
    others = sorted(set(range(len(corpus.scenes))) - set(animals))

    def pose(i: int) -> object:
        return corpus.scenes[i].entities[0].action, corpus.scenes[i].entities[0].colour

    def endless(numbers: list[int], key: Callable[[int], object]) -> Iterator[int]:
        while True:
            yield from _in_groups(numbers, key, rng)

    first, second = endless(animals, pose), endless(others, _kind_of(corpus, rng))
    while True:
        yield [next(half) for half in (first, second) for _ in range(BATCH // 2)]


class Student(torch.nn.Module):
    """The model and the heads that are thrown away after training."""

    def __init__(self, tokenizer: Tokenizer, facts: int, shape: Shape) -> None:
        super().__init__()
        self.clip = new_model(tokenizer, shape)
        self.clip.logit_scale.data.fill_(math.log(1 / 0.07))
        self.picture_facts = torch.nn.Linear(shape.image_width, facts)
        self.caption_facts = torch.nn.Linear(shape.text_width, facts)
        self.patch = torch.nn.Linear(shape.image_width, len(_KIND_IDS) + 1 + len(_ACTIONS) + len(_COLOURS))
        for head in (self.picture_facts, self.caption_facts):
            torch.nn.init.normal_(head.weight, std=0.02)
            torch.nn.init.constant_(head.bias, -4)

    def see(self, batch: Batch, kept: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pooled (B, W), per-patch (B, P, W) and the patches' targets (B, P, 3); `kept` patches or all."""
        tower = self.clip.vision_model
        hidden, targets = tower.embeddings(batch.pixels), batch.patches
        if kept is not None:
            ink = batch.pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).std(dim=(1, 4, 5)).flatten(1)
            best = (ink + 0.35 * torch.rand_like(ink)).topk(kept, dim=1).indices
            targets = targets.gather(1, best[:, :, None].expand(-1, -1, 3))
            places = torch.cat([torch.zeros_like(best[:, :1]), best + 1], dim=1)
            hidden = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2]))
        hidden = tower.encoder(inputs_embeds=tower.pre_layrnorm(hidden)).last_hidden_state
        return tower.post_layernorm(hidden[:, 0]), hidden[:, 1:], targets

    def losses(self, batch: Batch, kept: int | None, *, practice: bool) -> dict[str, torch.Tensor]:
        """The contrastive loss and the three helpers."""
        pooled, patches, targets = self.see(batch, kept)
        said = self.clip.text_model(input_ids=batch.tokens).pooler_output
        pictures = functional.normalize(self.clip.visual_projection(pooled), dim=1)
        texts = functional.normalize(self.clip.text_projection(said), dim=1)
        count = len(pictures)
        logits = self.clip.logit_scale.exp().clamp(max=100) * texts @ pictures.T
        contrast = _all_true(logits, batch) if practice else _own(logits, batch)
        kinds, actions, colours = self.patch(patches).split([len(_KIND_IDS) + 1, len(_ACTIONS), len(_COLOURS)], dim=2)
        guess = functional.cross_entropy
        bce = functional.binary_cross_entropy_with_logits
        return {
            "contrast": contrast,
            "picture": bce(self.picture_facts(pooled), batch.picture_facts, reduction="sum") / count,
            "caption": bce(self.caption_facts(said[:count]), batch.caption_facts, reduction="sum") / count,
            "patch": sum(
                guess(scores.flatten(0, 1), targets[:, :, i].flatten(), ignore_index=_NOTHING)
                for i, scores in enumerate((kinds, actions, colours))
            ),
        }


def _own(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """CLIP's loss both ways, with no caption a negative of a picture that it is true of; logits are (T, B)."""
    count = logits.shape[1]
    own = torch.zeros_like(batch.true)
    own[:count] = torch.eye(count, dtype=torch.bool)
    logits = logits.masked_fill(batch.true & ~own, -1e4)
    target = torch.arange(count)
    return (functional.cross_entropy(logits[:count], target) + functional.cross_entropy(logits.T, target)) / 2


def _all_true(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Contrastive loss with every true pair of caption and picture as a positive, against all false pairs."""
    captions = len(logits) - batch.negatives

    def one_way(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        against = logits.masked_fill(true, -1e4).logsumexp(dim=1, keepdim=True)
        pairs = functional.softplus(against - logits) * true
        return (pairs.sum(dim=1) / true.sum(dim=1).clamp(min=1)).mean()

    return (one_way(logits[:captions], batch.true[:captions]) + one_way(logits.T, batch.true.T)) / 2


def _optimizers(student: Student) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in student.clip.named_parameters() if p.ndim == 2 and ".layers." in n]
    rest = [p for p in student.parameters() if not any(p is m for m in matrices)]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [Muon(matrices, MUON_RATE), torch.optim.AdamW(groups, lr=ADAM_RATE, betas=(0.9, 0.98), fused=True)]


def train(
    folder: Path,
    steps: int,
    decay: int,
    *,
    threads: int = 2,
    peak: float = 1.0,
    focus: bool = False,
    seed: int = 0,
    small: bool = False,
) -> None:
    """Train on the pictures in `folder` until `steps`, from the last checkpoint there if there is one.

    The rate falls to zero over the last `decay` steps; `peak` scales it, and `focus` takes `focused_batches`. The
    first weights follow from `seed`; `small` makes the second, smaller model.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    # 1. words
    words_file = folder / "tokenizer.json"
    if not words_file.exists():
        train_tokenizer().save(str(words_file))
    tokenizer = load_tokenizer(words_file)
    words = Words(tokenizer)
    # 2. pictures
    corpus = Corpus.load(folder)
    vocabulary = fact_vocabulary(corpus)
    exam = held_out(500)
    # 3. model, taken up where it stopped
    student = Student(tokenizer, len(vocabulary), SECOND if small else RELEASED)
    optimizers = _optimizers(student)
    step = _resume(folder, student, optimizers)
    print(f"{len(corpus.scenes)} pictures, {len(vocabulary)} facts, from step {step} to {steps}", flush=True)
    # 4. steps
    started, sums = time.perf_counter(), Counter()
    for numbers in (focused_batches if focus else batches)(corpus, step):
        if step >= steps:
            break
        torch.manual_seed(step)
        falling, practice = step >= steps - decay, step >= steps - PRACTICE
        batch = make_batch(corpus, numbers, words, vocabulary, Random(f"step-{step}"), practice=practice)
        rate = peak * min(1.0, (step + 1) / WARM_UP) * ((steps - step) / decay if falling else 1.0)
        losses = student.losses(batch, None if falling else KEPT_PATCHES, practice=practice)
        help_weight = 0.25 if not falling else 0.25 * (0.3 + 0.7 * (steps - step) / decay)
        loss = losses["contrast"] + help_weight * (0.4 * losses["picture"] + 0.2 * losses["caption"] + losses["patch"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for optimizer, base in zip(optimizers, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        student.clip.logit_scale.data.clamp_(0, math.log(100))
        step += 1
        sums.update({name: value.item() for name, value in losses.items()} | {"n": 1})
        if step % CHECKPOINT_EVERY == 0 or step == steps:
            n = sums.pop("n")
            report = {name: round(total / n, 3) for name, total in sums.items()}
            speed = n * BATCH / (time.perf_counter() - started)
            report |= {"step": step, "pairs/s": round(speed), "scale": round(student.clip.logit_scale.exp().item(), 1)}
            if step % (4 * CHECKPOINT_EVERY) == 0 or step == steps:
                report |= retrieval(student.clip, words, exam)
            _save(folder, step, student, optimizers, report)
            started, sums = time.perf_counter(), Counter()


def _save(folder: Path, step: int, student: Student, optimizers: list[torch.optim.Optimizer], report: object) -> None:
    print(json.dumps(report), flush=True)
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(report) + "\n")
    state = {"step": step, "student": student.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    torch.save(state, folder / "checkpoint.new")
    (folder / "checkpoint.new").replace(folder / "checkpoint.pt")


def _resume(folder: Path, student: Student, optimizers: list[torch.optim.Optimizer]) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    student.load_state_dict(state["student"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])
