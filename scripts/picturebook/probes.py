"""Probes of a released model: small galleries, each of which tests one ability.

They ask what the prototype's probes asked, so that the figures can stand side by side. A gallery takes
combinations of kind, action, colour and place that training held out, as far as there are any; every drawing is
new in any case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoProcessor, CLIPModel

from . import emoji
from .caption import VERBS, article, plural
from .places import OUTDOORS, PLACES, TIMES, WEATHER
from .render import render
from .samples import noun_phrase
from .scene import KINDS, Entity, Scene, complete, facts_of, figure_fact, is_held_out

_BATCH = 50
_GROUND = (*OUTDOORS, "room", "kitchen")
_ACTIONS = ("sleep", "run", "sit")
_SYNONYMS = {
    "a puppy napping": ("dog", "sleep"),
    "a kitten taking a nap": ("cat", "sleep"),
    "puppy asleep": ("dog", "sleep"),
    "the doggy is dashing": ("dog", "run"),
    "a seated kitty": ("cat", "sit"),
    "my dog fell asleep": ("dog", "sleep"),
    "dog sleep": ("dog", "sleep"),
}
_KEYWORDS: dict[str, Callable[[Scene], bool]] = {
    "sleeping": lambda scene: _does(scene, "sleep"),
    "flying": lambda scene: _does(scene, "fly"),
    "swim": lambda scene: _does(scene, "swim"),
    "dog eat": lambda scene: figure_fact("dog", action="eat") in facts_of(scene),
    "cat run": lambda scene: figure_fact("cat", action="run") in facts_of(scene),
    "orange truck": lambda scene: figure_fact("truck", colour="orange") in facts_of(scene),
    "animal eat": lambda scene: figure_fact("~animal", action="eat") in facts_of(scene),
    "person reading": lambda scene: figure_fact("~person", action="read") in facts_of(scene),
    "city night": lambda scene: scene.place == "city" and scene.time == "night",
    "rain": lambda scene: scene.weather == "rain",
}
"""What a hurried person types, and whether a picture is what was meant."""


def _does(scene: Scene, action: str) -> bool:
    return any(entity.action == action for entity in scene.entities)


class Searcher:
    """A released model as its users meet it: plain transformers and the folder's own preprocessing."""

    def __init__(self, folder: Path, side: int) -> None:
        """Load `folder`; scenes will be drawn on pages of `side` pixels."""
        self._model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._processor = AutoProcessor.from_pretrained(folder)
        self._side = side
        self.pictures_seen, self.held_out_seen = 0, 0

    @torch.no_grad()
    def pictures(self, pictures: Iterable[Image.Image]) -> torch.Tensor:
        """(N, D) unit vectors."""
        pictures, parts = iter(pictures), []
        while batch := list(islice(pictures, _BATCH)):
            given = self._processor(images=batch, return_tensors="pt")
            parts.append(self._model.get_image_features(**given).pooler_output)
        return functional.normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(N, D) unit vectors."""
        given = self._processor(text=list(texts), padding=True, truncation=True, return_tensors="pt")
        return functional.normalize(self._model.get_text_features(**given).pooler_output, dim=1)

    def draw(self, scenes: Sequence[Scene], rng: Random) -> torch.Tensor:
        """(N, D) unit vectors of new drawings of `scenes`."""
        self.pictures_seen += len(scenes)
        self.held_out_seen += sum(all(is_held_out(e, scene.place) for e in scene.entities) for scene in scenes)
        return self.pictures(render(scene, rng, self._side).picture for scene in scenes)

    def first(self, query: str, gallery: torch.Tensor, k: int = 1) -> list[int]:
        """The rows of the `k` best hits, best first."""
        return (gallery @ self.texts([query])[0]).topk(k).indices.tolist()


@dataclass
class Tally:
    """How often each query was answered right."""

    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, right: int, asked: int = 1) -> None:
        """Count `right` of `asked`."""
        self.right[name] += right
        self.asked[name] += asked

    def counts(self) -> dict[str, str]:
        """Each query's "18/20"."""
        return {name: f"{self.right[name]}/{asked}" for name, asked in self.asked.items()}


def spread(wanted: Entity, number: int, rng: Random, places: Sequence[str] = _GROUND) -> Iterator[Scene]:
    """`number` scenes of such an entity in different places, held-out combinations first.

    An action or a colour that `wanted` leaves open is open.
    """
    kind = KINDS[wanted.kind]
    acts = [wanted.action] if wanted.action else kind.actions or [None]
    hues = [wanted.colour] if wanted.colour else kind.colours or [None]
    options = [(replace(wanted, action=act, colour=hue), place) for act, hue, place in product(acts, hues, places)]
    rng.shuffle(options)
    options.sort(key=lambda option: not is_held_out(*option))
    taken: set[str] = set()
    for entity, place in options:
        if place not in taken and len(taken) < number:
            taken.add(place)
            yield Scene((entity,), place, rng.choice(["day", "day", "night"]))


def told_apart(searcher: Searcher, names: Sequence[str], draws: int) -> Tally:
    """One picture, and the bare nouns of `names` to choose from: "a dog", "a cat", ..."""
    rng, tally = Random("told apart"), Tally()
    nouns = searcher.texts([article(name) for name in names])
    for row, name in enumerate(names):
        gallery = searcher.draw(list(spread(Entity(name), draws, rng)), rng)
        right = int(((gallery @ nouns.T).argmax(dim=1) == row).sum())
        tally.add(f"{name}, of {len(names)} kinds", right, len(gallery))
    return tally


def actions(searcher: Searcher, animal: str, draws: int) -> Tally:
    """Nine pictures of an animal, three of each action; right if the first three hits are those asked for."""
    rng, tally = Random(f"actions-{animal}"), Tally()
    queries = {
        f"{article(animal)} is sleeping": "sleep",
        f"{article(animal)} running": "run",
        f"a sitting {animal}": "sit",
        "an animal that is asleep": "sleep",
    }
    for _ in range(draws):
        scenes = [scene for action in _ACTIONS for scene in spread(Entity(animal, action=action), 3, rng)]
        gallery = searcher.draw(scenes, rng)
        for query, action in queries.items():
            hits = searcher.first(query, gallery, 3)
            tally.add(query, all(scenes[hit].entities[0].action == action for hit in hits))
    return tally


def synonyms(searcher: Searcher, draws: int) -> Tally:
    """Dogs and cats, two of each action; right if the first two hits of twelve are those asked for."""
    rng, tally = Random("synonyms"), Tally()
    wanted = [Entity(kind, action=action) for kind, action in product(("dog", "cat"), _ACTIONS)]
    for _ in range(draws):
        scenes = [replace(scene, time="day") for entity in wanted for scene in spread(entity, 2, rng)]
        gallery = searcher.draw(scenes, rng)
        for query, meant in _SYNONYMS.items():
            found = [scenes[hit].entities[0] for hit in searcher.first(query, gallery, 2)]
            tally.add(query, all((entity.kind, entity.action) == meant for entity in found))
    return tally


def colours(searcher: Searcher, draws: int) -> Tally:
    """Three pictures of each of five colours; right if the first three hits are those asked for."""
    tally = Tally()
    for kind in ("car", "house", "cat", "balloon"):
        rng = Random(f"colours-{kind}")
        for _ in range(draws):
            five = KINDS[kind].colours[:5]
            scenes = [s for colour in five for s in spread(Entity(kind, colour=colour), 3, rng, OUTDOORS)]
            gallery = searcher.draw(scenes, rng)
            for colour in five:
                hits = searcher.first(f"{article(colour)} {kind}", gallery, 3)
                tally.add(kind, all(scenes[hit].entities[0].colour == colour for hit in hits))
    return tally


def counts(searcher: Searcher, draws: int) -> Tally:
    """Three pictures each of one to four figures; counts the hits among the first three with as many."""
    tally = Tally()
    for kind in ("dog", "car", "apple", "tree"):
        rng = Random(f"counts-{kind}")
        many = plural(kind)
        queries = {1: f"one {kind}", 2: f"two {many}", 3: f"three {many}", 4: f"4 {many}"}
        action = "stand" if kind == "dog" else None
        for _ in range(draws):
            scenes = [s for n in queries for s in spread(Entity(kind, n, action), 3, rng, OUTDOORS)]
            gallery = searcher.draw(scenes, rng)
            for number, query in queries.items():
                hits = searcher.first(query, gallery, 3)
                tally.add(kind, sum(scenes[hit].entities[0].count == number for hit in hits), 3)
    return tally


def two_things(searcher: Searcher, draws: int) -> Tally:
    """A picture of two things among four that lack one of them; right if it is the first hit."""
    rng, tally = Random("two things"), Tally()
    glyphs = [kind.name for kind in emoji.KINDS if kind.zone == "ground"]
    movers = ("cat", "dog", "rabbit", "boy", "woman", "horse")
    for _ in range(draws):
        for _ in range(1000):  # until both are held out there, one time in a hundred
            mover, thing = complete(Entity(rng.choice(movers)), rng), Entity(rng.choice(glyphs))
            place = rng.choice(_GROUND)
            if is_held_out(mover, place) and is_held_out(thing, place):
                break
        other_mover = complete(Entity(rng.choice([name for name in movers if name != mover.kind])), rng)
        other_thing = Entity(rng.choice([name for name in glyphs if name != thing.kind]))
        groups = ((mover, thing), (mover,), (thing,), (mover, other_thing), (other_mover, thing))
        gallery = searcher.draw([Scene(group, place) for group in groups], rng)
        query = f"{article(mover.kind)} next to {noun_phrase(thing)}"
        tally.add("a cat next to a pizza", searcher.first(query, gallery) == [0])
    return tally


def _told_apart(searcher: Searcher, tally: Tally, name: str, scenes: list[Scene], says: list[str], rng: Random) -> None:
    """Ask for each of two pictures; right if it scores higher than the other."""
    scores = searcher.texts(says) @ searcher.draw(scenes, rng).T
    tally.add(name, int((scores.argmax(1) == torch.arange(2)).sum()), 2)


def swapped(searcher: Searcher, draws: int) -> Tally:
    """Two pictures that differ in which figure has which colour, or does what; chance is one half."""
    rng, tally = Random("swapped"), Tally()
    for _ in range(draws):
        a, b = rng.sample(["car", "house", "ball", "cup", "bus", "umbrella", "chair"], 2)
        c, d = rng.sample(["red", "blue", "green", "yellow"], 2)
        place = rng.choice(OUTDOORS)
        pairs = [(Entity(a, colour=x), Entity(b, colour=y)) for x, y in ((c, d), (d, c))]
        says = [f"a {one.colour} {a} and a {two.colour} {b}" for one, two in pairs]
        scenes = [Scene(pair, place) for pair in pairs]
        _told_apart(searcher, tally, "a red car and a blue house", scenes, says, rng)
    for _ in range(draws):
        a, b = rng.sample(["dog", "cat", "horse", "rabbit", "lion", "cow"], 2)
        do, act = rng.sample(["sleep", "run", "sit", "eat", "jump"], 2)
        one, two = complete(Entity(a), rng), complete(Entity(b), rng)
        place = rng.choice(OUTDOORS)
        pairs = [(replace(one, action=x), replace(two, action=y)) for x, y in ((do, act), (act, do))]
        doing, acting = VERBS[do].ing[0], VERBS[act].ing[0]
        says = [f"a {a} {doing} and a {b} {acting}", f"a {a} {acting} and a {b} {doing}"]
        scenes = [Scene(pair, place) for pair in pairs]
        _told_apart(searcher, tally, "a dog sleeping and a cat running", scenes, says, rng)
    return tally


def places(searcher: Searcher, draws: int) -> Tally:
    """A dog in each of all places; right if the first hit is in the one asked for.

    Some are places where no training picture shows a dog: the sky, the sea, under water, space.
    """
    rng, tally = Random("places"), Tally()
    for _ in range(draws):
        scenes = [next(spread(Entity("dog"), 1, rng, [place])) for place in PLACES]
        gallery = searcher.draw([replace(scene, time="day") for scene in scenes], rng)
        for i, place in enumerate(PLACES):
            tally.add("a dog in a place", searcher.first(f"a dog {PLACES[place][0]}", gallery) == [i])
    return tally


def conditions(searcher: Searcher, draws: int) -> Tally:
    """One scene at all hours and in all weathers; right if the first hit is the one asked for."""
    rng, tally = Random("conditions"), Tally()
    for _ in range(draws):
        kind = rng.choice(["dog", "cat", "car", "house"])
        scene = replace(next(spread(complete(Entity(kind), rng), 1, rng, OUTDOORS)), time="day")
        says = f"{noun_phrase(scene.entities[0])} {PLACES[scene.place][0]}"
        hours = searcher.draw([replace(scene, time=time) for time in TIMES], rng)
        skies = searcher.draw([replace(scene, weather=weather) for weather in (*WEATHER, None)], rng)
        for i, (time, phrases) in enumerate(TIMES.items()):
            tally.add(time, searcher.first(f"{says} {phrases[0]}", hours) == [i])
        for i, (weather, phrases) in enumerate(WEATHER.items()):
            tally.add(f"{weather}fall", searcher.first(f"{says} {phrases[0]}", skies) == [i])
    return tally


def keywords(searcher: Searcher, scenes: Sequence[Scene], gallery: torch.Tensor) -> Tally:
    """Bare words asked of the large gallery; counts the hits among the first five that were meant."""
    tally = Tally()
    for query, meant in _KEYWORDS.items():
        good = [meant(scene) for scene in scenes]
        k = min(5, sum(good))
        if k:
            tally.add(query, sum(good[hit] for hit in searcher.first(query, gallery, k)), k)
    return tally
