"""English for scenes: many ways to say the same thing, and for each the facts that it claims.

`describe` draws a caption afresh at each call: synonyms, hypernyms, word order, tense, articles, keywords without
grammar, and how much is said all vary. The facts that come with it are `scene`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from .emoji import MASS_NOUNS, PLURAL_NOUNS
from .places import PLACES, TIMES, WEATHER
from .scene import ANY, KINDS, Entity, Scene, figure_fact


@dataclass(frozen=True)
class Verb:
    """The forms of one action, commonest first."""

    ing: tuple[str, ...]
    simple: tuple[str, ...]
    """Third person singular; the plural drops the s of its first word."""
    states: tuple[str, ...] = ()
    """Forms that need "is": a dog is asleep."""
    past: tuple[str, ...] = ()


VERBS = {
    "stand": Verb(("standing", "standing still"), ("stands",)),
    "sleep": Verb(
        ("sleeping", "napping", "dozing", "snoozing", "resting", "taking a nap", "sleeping peacefully", "having a nap"),
        ("sleeps", "naps", "dozes", "takes a nap"),
        ("asleep", "fast asleep"),
        ("fell asleep", "has fallen asleep", "slept"),
    ),
    "sit": Verb(("sitting", "sitting down", "sitting still"), ("sits", "sits down"), ("seated",), ("sat down", "sat")),
    "run": Verb(
        ("running", "dashing", "racing", "sprinting", "running fast", "running away"),
        ("runs", "dashes", "races", "runs fast"),
        (),
        ("ran", "ran away"),
    ),
    "jump": Verb(
        ("jumping", "leaping", "hopping", "jumping in the air", "jumping up"),
        ("jumps", "leaps", "hops"),
        (),
        ("jumped", "leapt"),
    ),
    "eat": Verb(
        ("eating", "having a meal", "feeding", "having lunch", "eating food"), ("eats", "has a meal"), (), ("ate",)
    ),
    "play": Verb(("playing", "playing with a ball", "playing ball"), ("plays", "plays with a ball"), (), ("played",)),
    "fly": Verb(("flying", "soaring", "flying in the air"), ("flies", "soars"), (), ("flew",)),
    "swim": Verb(("swimming", "floating"), ("swims",), (), ("swam",)),
    "read": Verb(("reading", "reading a book"), ("reads", "reads a book"), (), ("read a book",)),
    "wave": Verb(("waving", "waving hello", "saying hello"), ("waves", "waves hello"), (), ("waved",)),
    "ride": Verb(("riding a bike", "cycling", "riding a bicycle"), ("rides a bike", "cycles"), (), ("rode a bike",)),
    "sail": Verb(("sailing",), ("sails",), (), ("sailed",)),
    "dance": Verb(("dancing",), ("dances",), (), ("danced",)),
    "cook": Verb(("cooking", "frying something", "cooking food"), ("cooks",), (), ("cooked",)),
    "paint": Verb(("painting", "painting a picture"), ("paints", "paints a picture"), (), ("painted",)),
    "crawl": Verb(("crawling",), ("crawls",), (), ("crawled",)),
}

NUMBERS = {
    2: ("two", "two", "2", "a pair of", "a couple of"),
    3: ("three", "three", "3"),
    4: ("four", "four", "4"),
}
BESIDE = ("and", "and", "next to", "with", "beside", "near", "by", "together with")
PREFIXES = (
    "a picture of", "an image of", "a drawing of", "a photo of", "an illustration of", "picture of", "a scene with",
)  # fmt: skip
QUESTS = {
    "~food": ("something to eat", "a snack", "food"),
    "~drink": ("something to drink", "a drink"),
    "~clothes": ("something to wear", "clothes"),
    "~vehicle": ("something to ride in", "vehicles"),
    "~toy": ("something to play with", "toys"),
    "~animal": ("some animal", "a creature", "wildlife"),
}
"""What people type for a whole class of things."""

_IRREGULAR = {
    "mouse": "mice", "man": "men", "gentleman": "gentlemen", "woman": "women", "snowman": "snowmen",
    "child": "children", "person": "people", "sheep": "sheep", "fish": "fish", "deer": "deer", "cattle": "cattle",
    "wolf": "wolves", "tooth": "teeth", "loaf": "loaves", "leaf": "leaves", "furniture": "furniture",
    "bison": "bison", "shrimp": "shrimp", "clothes": "clothes", "knife": "knives", "scarf": "scarves",
    "foot": "feet", "goose": "geese", "dice": "dice", "tomato": "tomatoes", "potato": "potatoes",
    "mango": "mangoes", "volcano": "volcanoes", "food": "food",
}  # fmt: skip
_KEYWORDS_DROP = frozenset(
    ["a", "an", "the", "is", "are", "in", "on", "at", "of", "and", "with", "by", "while", "it", "to", "has", "my"]
)


def plural(noun: str) -> str:
    """The plural of a noun or a noun phrase ("slice of pizza": "slices of pizza")."""
    head, of, rest = noun.partition(" of ")
    if of:
        return plural(head) + of + rest
    if noun in PLURAL_NOUNS or noun in MASS_NOUNS:
        return noun
    *front, last = noun.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    elif last.endswith(("x", "ch", "sh", "ss", "us")):
        last += "es"
    elif not last.endswith("s"):
        last += "s"
    return " ".join([*front, last])


def article(phrase: str) -> str:
    """`phrase` with "a" or "an"."""
    silent = phrase.startswith(("hour", "honest"))
    vowel = phrase[0] in "aeiou" and not phrase.startswith(("uni", "use", "one", "eu", "uku"))
    return ("an " if vowel or silent else "a ") + phrase


def _takes_no_article(noun: str) -> bool:
    """Whether a noun stands alone: jeans, grapes, bread."""
    return noun in PLURAL_NOUNS or noun in MASS_NOUNS or noun in ("clothes", "cattle", "food", "furniture")


@dataclass(frozen=True)
class _Mention:
    """Describe one entity: the noun phrase, and the action if it follows the noun."""

    phrase: str
    action: str | None
    plural: bool
    fact: str


def _noun(entity: Entity, rng: Random, detail: float) -> tuple[str, str]:
    """A noun for `entity` and the base that it claims."""
    kind = KINDS[entity.kind]
    words = [base for base in entity.bases if base.startswith("~")]
    if words and rng.random() < 0.09 * (1.6 - detail):
        base = rng.choice(words)
        return base[1:], base
    noun = kind.nouns[0] if rng.random() < 0.45 else rng.choice(kind.nouns)
    return noun, "~child" if noun in ("child", "kid") else kind.name


def _mention(entity: Entity, rng: Random, detail: float, *, with_action: bool) -> _Mention:
    noun, base = _noun(entity, rng, detail)
    said = Entity(
        entity.kind,
        entity.count,
        entity.action
        if with_action and rng.random() < detail * (0.5 if entity.action == "stand" and detail < 1 else 1)
        else None,
        entity.colour if rng.random() < detail else None,
    )
    word, behind = noun, ""
    if said.colour and "~person" in entity.bases and base != "~toy":
        dress = "dress" if entity.kind in ("woman", "girl") else "shirt"
        ways = ("in {0}", "wearing {0}", "in a {0} {1}", "with a {0} {1}")
        behind = " " + rng.choice(ways).format(said.colour, dress)
    elif said.colour:
        word = ("grey" if said.colour == "gray" and rng.random() < 0.4 else said.colour) + " " + word
    action = _participle(said.action, rng) if said.action else None
    if action and " " not in action and action not in ("asleep", "seated") and rng.random() < 0.25:
        word, action = f"{action} {word}", None
    many = entity.count > 1
    determined, count = _determine(word, noun, entity.count, rng)
    return _Mention(determined + behind, action, many, figure_fact(base, count, said.colour, said.action))


def _participle(action: str, rng: Random) -> str:
    verb = VERBS[action]
    forms = verb.ing + verb.states
    return verb.ing[0] if rng.random() < 0.4 else rng.choice(forms)


def _determine(word: str, noun: str, count: int, rng: Random) -> tuple[str, str]:
    """`word` with an article or a number in front, and the count that this claims."""
    if count > 1:
        many = word.removesuffix(noun) + plural(noun)
        if rng.random() < 0.88:
            return f"{rng.choice(NUMBERS[count])} {many}", str(count)
        return rng.choice(["some ", "several ", "", "a group of ", "the "]) + many, ">1"
    x = rng.random()
    if _takes_no_article(noun):
        return (word if x < 0.7 else f"the {word}" if x < 0.85 else f"some {word}"), ANY
    if x < 0.05:
        return f"one {word}", "1"
    if x < 0.80:
        return article(word), ANY
    return (f"the {word}" if x < 0.88 else f"my {word}" if x < 0.91 else word), ANY


def _clause(mention: _Mention, entity: Entity, rng: Random) -> str:
    """The noun phrase and what its figures do."""
    if not mention.action:
        return mention.phrase
    are = "are" if mention.plural else "is"
    verb = VERBS[entity.action or "stand"]
    x = rng.random()
    if x < 0.12:
        simple = rng.choice(verb.simple)
        return f"{mention.phrase} {_unsigned(simple) if mention.plural else simple}"
    if x < 0.17 and verb.past:
        past = rng.choice(verb.past)
        return f"{mention.phrase} {past.replace('has ', 'have ') if mention.plural else past}"
    if x < 0.58 or mention.action in verb.states:
        return f"{mention.phrase} {are} {mention.action}"
    return f"{mention.phrase} {mention.action}"


def _unsigned(simple: str) -> str:
    """What many do: "runs fast" becomes "run fast"."""
    first, _, rest = simple.partition(" ")
    first = {"flies": "fly", "has": "have", "dashes": "dash"}.get(first, first.removesuffix("s"))
    return f"{first} {rest}".strip()


def describe(scene: Scene, rng: Random, detail: float | None = None) -> tuple[str, frozenset[str]]:
    """One caption of `scene` and the facts that it claims.

    `detail` is the chance that an attribute is mentioned; 1 mentions all of them, None draws it.
    """
    if detail is None:
        detail = rng.choice([0.3, 0.6, 0.9, 1.0])
    if detail < 1 and rng.random() < 0.02 and (quest := _quest(scene, rng)):
        return quest
    if detail < 1 and rng.random() < 0.08:
        return _keywords(scene, rng)
    mentioned = list(scene.entities)
    if len(mentioned) == 2 and rng.random() > 0.5 + 0.5 * detail:
        mentioned = [rng.choice(mentioned)]
    first = _mention(mentioned[0], rng, detail, with_action=True)
    text, facts = _clause(first, mentioned[0], rng), {first.fact}
    if len(mentioned) == 2:
        second = _mention(mentioned[1], rng, detail * 0.9 if detail < 1 else 1, with_action=True)
        other = _clause(second, mentioned[1], rng)
        facts |= {second.fact, "entities=2"}
        if scene.relation and rng.random() < 0.8:
            facts.add(f"relation={scene.relation}")
            text = f"{text} {scene.relation} {replace(second, action=None).phrase}"
        elif rng.random() < 0.3:
            text = f"{other} and {text}"
        else:
            text = f"{text} {rng.choice(BESIDE)} {other}"
    elif rng.random() < 0.04:
        text = ("there are " if first.plural else "there is ") + text.replace(" is ", " ").replace(" are ", " ")
    if rng.random() < 0.18:
        text = f"{rng.choice(PREFIXES)} {text}"
    text = _setting(text, scene, facts, rng, detail)
    if rng.random() < 0.05:
        text = _telegram(text)
    return text, frozenset(facts)


def describe_briefly(scene: Scene, rng: Random) -> tuple[str, frozenset[str]]:
    """Make a brief query: one entity of `scene`, with up to two of the facts that are true of it."""
    entity = rng.choice(scene.entities)
    said = rng.choice(["", "", "action", "action", "action", "colour", "action colour", "place", "action place"])
    brief = Entity(
        entity.kind,
        entity.count,
        entity.action if "action" in said else None,
        entity.colour if "colour" in said else None,
    )
    mention = _mention(brief, rng, 1.0, with_action=True)
    text, facts = _clause(mention, brief, rng), {mention.fact}
    if "place" in said:
        text = f"{text} {_phrase(PLACES[scene.place], rng)}"
        facts.add(f"place={scene.place}")
    return text, frozenset(facts)


def _setting(text: str, scene: Scene, facts: set[str], rng: Random, detail: float) -> str:
    """`text` with place, time and weather, each said with its own chance."""
    sure = detail >= 1
    if sure or rng.random() < detail * 0.85:
        facts.add(f"place={scene.place}")
        where = _phrase(PLACES[scene.place], rng)
        text = f"{text} {where}" if rng.random() < 0.9 else f"{where}, {text}"
    told = 0.9 if sure else detail * 0.6
    if scene.place not in ("underwater", "space", "stage") and rng.random() < (
        told if scene.time != "day" else told / 4
    ):
        facts.add(f"time={scene.time}")
        when = _phrase(TIMES[scene.time], rng)
        text = f"{text} {when}" if rng.random() < 0.92 else f"{when}, {text}"
    if scene.weather and rng.random() < (1 if sure else 0.7 * detail):
        facts.add(f"weather={scene.weather}")
        text = f"{text} {_phrase(WEATHER[scene.weather], rng)}"
    return text


def _phrase(phrases: tuple[str, ...], rng: Random) -> str:
    return phrases[0] if rng.random() < 0.35 else rng.choice(phrases)


def _keywords(scene: Scene, rng: Random) -> tuple[str, frozenset[str]]:
    """What a hurried person types: "dog sleep", "red car beach"."""
    entity = rng.choice(scene.entities)
    noun, base = _noun(entity, rng, 1.0)
    words, colour, action = [], None, None
    if entity.colour and rng.random() < 0.4 and "~person" not in entity.bases:
        colour = entity.colour
        words.append(colour)
    words.append(plural(noun) if entity.count > 1 and rng.random() < 0.5 else noun)
    if entity.action and rng.random() < 0.75:
        action = entity.action
        verb = VERBS[action]
        bare = tuple(_unsigned(form) for form in verb.simple)
        words.append(rng.choice(bare + bare + verb.ing[:2] + verb.states))
    facts = {figure_fact(base, ANY, colour, action)}
    text = " ".join(words)
    if rng.random() < 0.3:
        facts.add(f"place={scene.place}")
        text = f"{text} {_telegram(rng.choice(PLACES[scene.place]))}"
    return text, frozenset(facts)


def _quest(scene: Scene, rng: Random) -> tuple[str, frozenset[str]] | None:
    bases = [base for base in rng.choice(scene.entities).bases if base in QUESTS]
    if not bases:
        return None
    base = rng.choice(bases)
    return rng.choice(QUESTS[base]), frozenset({figure_fact(base)})


def _telegram(text: str) -> str:
    return " ".join(word for word in text.replace(",", "").split() if word not in _KEYWORDS_DROP)
