"""Scenes: what is in a picture, which pictures are held out of training, and which facts a picture satisfies.

A scene is data; `caption` puts it into words and `render` onto paper. A *fact* is a string that names one thing
that a caption may claim; a caption is true of a picture when its facts are a subset of the picture's. Facts about
a figure are conjunctions ("dog|2|brown|sleep", with * for what is not said), so that "a red car and a blue house"
is not true of a blue car beside a red house.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import product
from random import Random

from . import animals, emoji, people, things
from .kinds import Kind
from .places import INDOORS, OUTDOORS

VECTOR_KINDS = (*animals.KINDS, *people.KINDS, *things.KINDS)
KINDS: dict[str, Kind] = {kind.name: kind for kind in (*VECTOR_KINDS, *emoji.KINDS)}
ANY = "*"
HELD_OUT_ONE_IN = 10
"""One in this number of combinations of kind, action, colour and place is kept for evaluation and samples."""

QUADRUPEDS = frozenset(kind.name for kind in animals.KINDS if "run" in kind.actions)
"""The four-legged animals, which share their poses."""
_PEOPLE = frozenset(kind.name for kind in people.KINDS)
_LYING_PLACES = frozenset({"sofa", "chair", "table", "bed", "bench"})
_ROOFS = frozenset({"tree", "umbrella", "table"})


@dataclass(frozen=True)
class Entity:
    """`count` figures of one kind that do and look the same."""

    kind: str
    count: int = 1
    action: str | None = None
    colour: str | None = None

    @property
    def bases(self) -> tuple[str, ...]:
        """The words it answers to: its kind, and ~hypernyms."""
        return self.kind, *("~" + word for word in KINDS[self.kind].hypernyms), *_ALSO.get(self.kind, ())


_ALSO = {"boy": ("~child",), "girl": ("~child",), "baby": ("~child",)}


@dataclass(frozen=True)
class Scene:
    """One or two entities in a place; `relation` ("on", "under") holds between the first and the second."""

    entities: tuple[Entity, ...]
    place: str
    time: str = "day"
    weather: str | None = None
    relation: str | None = None


def figure_fact(base: str, count: str = ANY, colour: str | None = None, action: str | None = None) -> str:
    """The fact that there are such figures; `count` is a number, ">1" or *."""
    return f"{base}|{count}|{colour or ANY}|{action or ANY}"


def facts_of(scene: Scene) -> frozenset[str]:
    """Everything that a caption may truly say of `scene`."""
    facts = {f"place={scene.place}", f"time={scene.time}", f"entities={len(scene.entities)}"}
    if scene.weather:
        facts.add(f"weather={scene.weather}")
    if scene.relation:
        facts.add(f"relation={scene.relation}")
    for entity in scene.entities:
        counts = {ANY, str(entity.count)} | ({">1"} if entity.count > 1 else set())
        for base, count, colour, action in product(entity.bases, counts, {None, entity.colour}, {None, entity.action}):
            facts.add(figure_fact(base, count, colour, action))
    return frozenset(facts)


def is_held_out(entity: Entity, place: str) -> bool:
    """Whether this combination of kind, action, colour and place never occurs in training."""
    combination = f"{entity.kind}|{entity.action}|{entity.colour}|{place}"
    return int(hashlib.md5(combination.encode(), usedforsecurity=False).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


def complete(entity: Entity, rng: Random) -> Entity:
    """`entity` with an action and a colour, where its kind has any and none is given."""
    kind = KINDS[entity.kind]
    action = entity.action or (rng.choice(kind.actions) if kind.actions else None)
    colour = entity.colour or (rng.choice(kind.colours) if kind.colours else None)
    return replace(entity, action=action, colour=colour)


def places_for(entity: Entity) -> tuple[str, ...]:
    """Where such an entity may be, likelier places more than once."""
    kind = KINDS[entity.kind]
    if kind.name == "fish":
        return ("underwater", "underwater", "sea")
    if entity.action == "swim" or kind.zone == "water":
        return ("sea", "underwater") if "sea animal" in kind.hypernyms else ("sea", "sea", "beach")
    if kind.zone == "sky" or entity.action == "fly":
        return (*OUTDOORS, "sky", "sky", "sky", "sky", "sea", "sea", "space")
    indoors = sorted(INDOORS)  # a set's order changes from run to run
    return (*OUTDOORS, *OUTDOORS, *indoors, *indoors)


def _weight(kind: Kind) -> float:
    if kind.name in ("dog", "cat"):
        return 6
    if kind.name in QUADRUPEDS or kind.name in _PEOPLE:
        return 3
    return 1.6 if kind.actions else 1.4


_WEIGHTS = [_weight(kind) for kind in VECTOR_KINDS]


def pick(rng: Random, glyph_share: float) -> Entity:
    """Some figure; `glyph_share` is the chance that the font draws it."""
    if rng.random() < glyph_share:
        return Entity(rng.choice(emoji.KINDS).name)
    return complete(Entity(rng.choices(VECTOR_KINDS, _WEIGHTS)[0].name), rng)


def _fits(entity: Entity, place: str) -> bool:
    """Whether `entity` can be a second entity in `place`."""
    return place in places_for(entity) or (place == "beach" and KINDS[entity.kind].zone == "ground")


def _relation(first: Entity, second: Entity, rng: Random) -> str | None:
    if (first.count, second.count) != (1, 1):
        return None
    kind = KINDS[first.kind]
    small = kind.zone == "ground" and kind.size <= 1.0 and first.action in (None, "sleep", "sit", "stand", "eat")
    if small and second.kind in _LYING_PLACES and (kind.name in QUADRUPEDS or kind.size < 0.7):
        return rng.choice(["on", "on", "under"]) if second.kind in _ROOFS else "on"
    if small and second.kind in _ROOFS:
        return rng.choice(["under", None])
    return None


def random_scene(rng: Random, split: str = "train") -> Scene:
    """A scene of the "train" split (no held-out combination) or the "test" split (nothing else)."""
    while True:
        count = rng.choices([1, 2, 3, 4], [0.62, 0.16, 0.12, 0.10])[0]
        first = replace(pick(rng, 0.4), count=count)
        place = rng.choice(places_for(first))
        entities = [first]
        if count <= 2 and rng.random() < 0.5:
            entities += _second(first, place, rng)
        held = [is_held_out(entity, place) for entity in entities]
        if (split == "train" and any(held)) or (split == "test" and not all(held)):
            continue
        relation = _relation(entities[0], entities[1], rng) if len(entities) == 2 else None
        return Scene(tuple(entities), place, *_time_and_weather(place, rng), relation)


def _second(first: Entity, place: str, rng: Random) -> list[Entity]:
    for _ in range(30):
        second = pick(rng, 0.45)
        if rng.random() < 0.2 and KINDS[first.kind].colours:
            second = complete(Entity(first.kind), rng)
        same = second.kind == first.kind and second.colour == first.colour
        if not same and _fits(second, place):
            return [replace(second, count=1 if rng.random() < 0.85 else 2)]
    return []


def _time_and_weather(place: str, rng: Random) -> tuple[str, str | None]:
    time = rng.choices(["day", "night", "sunset"], [0.58, 0.28, 0.14])[0]
    if place in ("underwater", "space", "stage"):
        time = "day"
    weather = None
    if place in OUTDOORS and rng.random() < 0.15:
        weather = "snow" if place == "snow" or rng.random() < 0.4 else "rain"
    return time, weather
