"""Benchmark of the confidence of `clipsearch query` on the sample images: is it there at all?

`clipsearch index` makes an index of sample-images with the bundled model in a temporary folder, and the public API
answers queries whose truth is known: some say what a sample shows, some what none shows. A query is answered with yes
if any picture has a confidence of at least a cut-off, which is what `--min-confidence` and the exit code say. The same
scores then tell what other prompts, other formulas and a flat cut-off of the cosine would have done. Run it with:

    python scripts/bench_confidence.py

Truth comes from the table that the samples are drawn from, which must agree with captions.csv. It takes half a minute,
and needs the package and scripts/picturebook, but neither its font nor anything that trains.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import bench_common as common
import numpy as np
import numpy.typing as npt
from picturebook.caption import VERBS, article
from picturebook.emoji import MASS_NOUNS, PLURAL_NOUNS
from picturebook.places import PLACES
from picturebook.samples import _rows, noun_phrase, plain_caption
from picturebook.scene import KINDS, Entity, Scene, facts_of, figure_fact

import clipsearch
from clipsearch.models.in_numpy import tower_cache
from clipsearch.search.confidence import NEUTRAL

SAMPLES = Path(__file__).resolve().parent.parent / "sample-images"
SURE = 0.8
"""The cut-off that `query --help` and the README recommend."""
CUT_OFFS = tuple(sorted({0.5, SURE, 0.9, 0.95}))
MOST = 150
"""Number of queries of each group, drawn from the many combinations that occur nowhere."""
WORST = 5
"""Examples of each group in the last line."""

FAR = (
    *("a watermark", "a nuclear submarine", "a barcode", "an x-ray", "quantum mechanics", "a spreadsheet"),
    *("a screenshot of an error message", "a blank page", "handwriting", "a wiring diagram", "a bar chart"),
    *("the stock market", "democracy", "jealousy", "a contract", "a tax return", "tomorrow", "a passport photo"),
    *("a surgeon in an operating room", "a satellite image of a coastline", "a wedding", "a football match"),
    *("a selfie", "a traffic jam", "a suspension bridge", "a skeleton", "a microchip", "an oil refinery"),
    *("a vacuum cleaner", "a washing machine", "a chess board", "a tattoo", "a protest march", "a coal mine"),
    *("a fingerprint", "a meme", "a crossword puzzle", "the periodic table", "asdf qwerty", "42"),
)
"""Words that are far from anything a picture book shows."""
ELSEWHERE = frozenset(
    (
        *("tree", "flower", "rose", "palm tree", "cactus", "potted plant", "wheat", "rock", "log", "bricks", "star"),
        *("house", "tower", "hut", "window", "door", "ladder", "chain", "barrier", "light bulb", "globe", "coral"),
        *("seashell", "book", "ball", "soccer ball", "basketball", "volleyball", "bicycle", "chair", "table", "bed"),
        *("hat", "dress", "t-shirt", "jeans", "shorts", "coat", "shirt and tie", "sneaker", "boot", "sandal", "socks"),
        *("high heel", "fire", "fried egg", "rice", "salad", "noodles", "paint palette", "basket", "feather"),
        *("hamburger", "pizza", "ice cream"),
    )
)
"""Kinds that places draw too, or that figures wear, hold, eat or sit on: whether a picture shows one is not known."""
NEAR = frozenset(("boat", "dinosaur", "moped", "phone"))
"""Kinds that no sample shows, though something much like them is there: a canoe, a t-rex, a motorcycle, a telephone."""
ALSO = {
    "car": ("police car", "taxi"),
    "truck": ("fire truck",),
    "bear": ("panda",),
    "balloon": ("hot air balloon",),
    "chicken": ("rooster",),
    "cake": ("cupcake",),
    "fish": ("shark",),
    "bird": ("duck", "penguin", "chicken", "owl", "flamingo", "peacock", "goose", "rooster"),
}
"""Other kinds that a word fits as well. Of some of them the table knows no colours and actions."""
CLASSES = {
    "an animal": "~animal",
    "a wild animal": "~wild animal",
    "a farm animal": "~farm animal",
    "a sea animal": "~sea animal",
    "an insect": "~insect",
    "a person": "~person",
    "a child": "~child",
    "a vehicle": "~vehicle",
    "fruit": "~fruit",
    "a dessert": "~dessert",
    "an instrument": "~instrument",
}
"""General words, and the facts that they stand for."""
UNTOLD = ("stand", "sit")
"""Actions that others contain: who eats stands, and people who read or ride a bicycle sit."""
DISTINCT = ("city", "room", "kitchen", "forest", "desert", "road", "farm", "underwater", "space", "playground", "stage")
"""Places that do not look like parts of each other, as a park and a garden do."""

BANKS = {
    "a photo": ("a photo",),
    "something, there is something": ("something", "there is something"),
    "and a drawing, a painting ...": (*NEUTRAL, "a drawing", "an illustration", "a painting", "a screenshot"),
    "an animal, food, a building ...": (
        *("an animal", "a person", "people", "food", "a plant", "a vehicle", "a building", "a landscape", "an object"),
        *("text", "indoors", "outdoors"),
    ),
}
"""Other prompts that queries could be compared with."""

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """One query and the truth about it."""

    group: str
    text: str
    true: Flags
    """(N,) which samples show it."""

    @property
    def occurs(self) -> bool:
        """Whether any sample shows it."""
        return bool(self.true.any())


@dataclass(frozen=True)
class Answers:
    """Answers of the index to texts."""

    row: dict[str, int]
    """Row of each text."""
    cosines: Numbers
    """(T, N) of texts and samples."""
    confidence: Numbers
    """(T, N), as the API gives it."""
    scale: float
    """The model's logit scale."""

    def of(self, texts: Iterable[str]) -> list[int]:
        """The rows of `texts`."""
        return [self.row[text] for text in texts]


def main() -> None:
    """Run the queries, evaluate the answers, and report."""
    # 1. Ask.
    samples = {sample.name: sample.scene for sample in _rows()}
    check_captions(samples)
    scenes = list(samples.values())
    questions = [*there(scenes), *not_there(scenes)]
    prompts = [prompt for bank in (NEUTRAL, *BANKS.values()) for prompt in bank]
    with tempfile.TemporaryDirectory(prefix="bench-confidence-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        common.run([common.clipsearch_command(), "index", str(SAMPLES), "--model", "picturebook"], work)
        answers = ask(work, unique([*(question.text for question in questions), *prompts]), list(samples))
        check_cut(work, questions, answers)
    # 2. Judge.
    rows = answers.of(question.text for question in questions)
    confidence = answers.confidence[rows]
    print(f"{len(questions)} queries, {len(samples)} pictures. Share of queries answered with yes, by cut-off:")
    parts = {
        "groups": groups(questions, confidence.max(axis=1)),
        "is_it_there": {str(cut): judged(questions, confidence.max(axis=1) >= cut) for cut in CUT_OFFS},
        "alternatives": alternatives(questions, answers),
        "by_number_of_pictures": by_number(questions, confidence),
        "pictures": {str(cut): pictures(questions, confidence >= cut) for cut in CUT_OFFS},
        "by_folder": by_folder(questions, answers, list(samples)),
        "worst": worst(questions, confidence, list(samples)),
    }
    # 3. Report.
    show_judged("confidence of at least", parts["is_it_there"])
    show_judged(f"alternatives, at {SURE} unless they say otherwise", parts["alternatives"])
    show_rest(parts)
    common.finish(benchmark="confidence", unit="shares of 1", sure=SURE, neutral=NEUTRAL, **parts)


def check_captions(samples: dict[str, Scene]) -> None:
    """Stop unless captions.csv says of each sample what the table says."""
    with (SAMPLES / "captions.csv").open(encoding="utf-8", newline="") as file:
        captions = {row["image"]: row["caption"] for row in csv.DictReader(file)}
    if captions != {name: plain_caption(scene) for name, scene in samples.items()}:
        raise SystemExit("captions.csv and the table in picturebook/samples.py differ: draw the samples anew.")


# -- queries ---------------------------------------------------------------------------------------------------


def there(scenes: Sequence[Scene]) -> Iterator[Question]:
    """Queries that samples answer; all of each group."""
    entities = list(dict.fromkeys(entity for scene in scenes for entity in scene.entities))
    entities = [entity for entity in entities if entity.kind not in ELSEWHERE]
    for kind in dict.fromkeys(entity.kind for entity in entities):
        true = shows(scenes, Entity(kind))
        noun, *more = KINDS[kind].nouns
        yield Question("kind", phrase(noun), true)
        for other in more:
            if other not in ("child", "kid", *KINDS):  # they are not only of this kind
                yield Question("other word", phrase(other), true)
    for text, base in CLASSES.items():
        yield Question("other word", text, has(scenes, figure_fact(base)))
    for entity in unique(Entity(e.kind, 1, None, e.colour) for e in entities if e.colour and paints(e.kind)):
        yield Question("colour and kind", noun_phrase(entity), shows(scenes, entity))
    for entity in unique(Entity(e.kind, 1, e.action) for e in entities if e.action and told(e.kind, e.action)):
        yield Question("kind and action", doing(entity), shows(scenes, entity))
    for kind, place in unique((e.kind, s.place) for s in scenes for e in s.entities if e in entities):
        yield Question("kind and place", located(kind, place), shows(scenes, Entity(kind), place))
    for text in unique(plain_caption(scene) for scene in scenes):
        yield Question("caption", text, np.array([plain_caption(scene) == text for scene in scenes]))


def not_there(scenes: Sequence[Scene]) -> Iterator[Question]:
    """Queries that no sample answers; those of a group that has very many are drawn by lot."""
    rng, none = Random(0), np.zeros(len(scenes), np.bool_)
    shown = unique(entity.kind for scene in scenes for entity in scene.entities)
    for kind in KINDS:
        if kind not in (*shown, *ELSEWHERE, *NEAR):
            yield Question("kind", phrase(KINDS[kind].nouns[0]), none)
    known = [kind for kind in shown if kind not in ELSEWHERE and kind not in ALSO]
    colours = [Entity(kind, 1, None, colour) for kind in known if paints(kind) for colour in KINDS[kind].colours]
    actions = [Entity(kind, 1, action) for kind in known for action in KINDS[kind].actions if told(kind, action)]
    places = list(product(known, DISTINCT))
    for entity in some([one for one in colours if not shows(scenes, one).any()], rng):
        yield Question("colour and kind", noun_phrase(entity), none)
    for entity in some([one for one in actions if not shows(scenes, one).any()], rng):
        yield Question("kind and action", doing(entity), none)
    for kind, place in some([one for one in places if not shows(scenes, Entity(one[0]), one[1]).any()], rng):
        yield Question("kind and place", located(kind, place), none)
    for scene in scenes:
        if changed := one_word_changed(scene, scenes, rng):
            yield Question("caption", plain_caption(changed), none)
    for text in FAR:
        yield Question("far", text, none)


def one_word_changed(scene: Scene, scenes: Sequence[Scene], rng: Random) -> Scene | None:
    """`scene` in another colour, at something else or elsewhere, as no sample shows it; None if that is not known."""
    first, *others = scene.entities
    if others or first.kind in ELSEWHERE or first.kind in ALSO:
        return None
    kind = KINDS[first.kind]
    figures = [replace(first, colour=colour) for colour in kind.colours if paints(first.kind)]
    figures += [replace(first, action=action) for action in kind.actions if told(first.kind, action)]
    changed = [replace(scene, entities=(figure,)) for figure in figures]
    if scene.weather is None and scene.time == "day":
        changed += [replace(scene, place=place) for place in DISTINCT]
    rng.shuffle(changed)
    return next((one for one in changed if not shows(scenes, one.entities[0], one.place).any()), None)


def has(scenes: Sequence[Scene], fact: str) -> Flags:
    """(N,) of which scenes a fact is true."""
    return np.array([fact in facts_of(scene) for scene in scenes])


def shows(scenes: Sequence[Scene], entity: Entity, place: str | None = None) -> Flags:
    """(N,) which scenes show such an entity, or another kind that the word fits, in such a place; None is any."""
    kinds = (entity.kind, *ALSO.get(entity.kind, ()))
    facts = {figure_fact(kind, colour=entity.colour, action=entity.action) for kind in kinds}
    return np.array([bool(facts & facts_of(scene)) and place in (None, scene.place) for scene in scenes])


def paints(kind: str) -> bool:
    """Whether a kind comes in more than one colour."""
    return len(KINDS[kind].colours) > 1


def told(kind: str, action: str) -> bool:
    """Whether it is known which samples show a kind at this. Only people sit to do something else."""
    return action not in (UNTOLD if "person" in KINDS[kind].hypernyms else UNTOLD[:1])


def phrase(noun: str) -> str:
    """A noun as it stands in a query: "a dog", "popcorn"."""
    return noun if noun in PLURAL_NOUNS | MASS_NOUNS else article(noun)


def doing(entity: Entity) -> str:
    """A kind and what it does: "a dog is sleeping"."""
    return f"{noun_phrase(replace(entity, colour=None))} is {VERBS[entity.action or 'stand'].ing[0]}"


def located(kind: str, place: str) -> str:
    """A kind in a place: "a dog in the forest"."""
    return f"{phrase(KINDS[kind].nouns[0])} {PLACES[place][0]}"


def unique(items: Iterable[Any]) -> list[Any]:
    """Return the items without repetitions."""
    return list(dict.fromkeys(items))


def some(items: Sequence[Any], rng: Random) -> list[Any]:
    """`MOST` of `items` by lot, or all of them if there are fewer."""
    return rng.sample(items, min(MOST, len(items)))


# -- answers ---------------------------------------------------------------------------------------------------


def ask(folder: Path, texts: Sequence[str], names: Sequence[str]) -> Answers:
    """Ask the index in `folder` for `texts` and the samples `names`."""
    with clipsearch.open_index(folder) as index:
        hits = index.search_many(texts, None)
        model = index.store.model()
        tower = tower_cache.load(model.fingerprint) if model else None
    assert tower
    column = {str((SAMPLES / name).resolve()): i for i, name in enumerate(names)}
    cosines, confidence = np.empty((2, len(texts), len(names)))
    for i, found in enumerate(hits):
        columns = [column[str(hit.path)] for hit in found]
        cosines[i, columns] = [hit.score for hit in found]
        confidence[i, columns] = [hit.confidence for hit in found]
    return Answers({text: i for i, text in enumerate(texts)}, cosines, confidence, tower.logits.scale)


def check_cut(folder: Path, questions: Sequence[Question], answers: Answers) -> None:
    """Stop unless a search with a cut-off finds something just where some confidence reaches it."""
    texts = [question.text for question in questions]
    with clipsearch.open_index(folder) as index:
        found = [bool(hits) for hits in index.search_many(texts, 1, min_confidence=SURE)]
    expected = answers.confidence[answers.of(texts)].max(axis=1) >= SURE
    if found != expected.tolist():
        raise SystemExit("min_confidence finds other pictures than those whose confidence reaches it.")


def against(answers: Answers, prompts: Sequence[str], *, total: bool = False, same_for_all: bool = False) -> Numbers:
    """(T, N) confidence of all texts against other `prompts`, as `clipsearch.search.confidence` has it, or changed.

    `total` lets the query compete with all prompts together and not with their mean; `same_for_all` with the mean over
    all pictures of what the prompts amount to.
    """
    logits = answers.scale * answers.cosines[answers.of(prompts)]
    strength = np.logaddexp.reduce(logits, axis=0) - (0 if total else np.log(len(prompts)))
    return np.asarray(
        1 / (1 + np.exp((strength.mean() if same_for_all else strength) - answers.scale * answers.cosines))
    )


# -- judgement -------------------------------------------------------------------------------------------------


def judged(questions: Sequence[Question], yes: Flags) -> dict[str, float]:
    """How good answers are, (Q,) of them.

    `recall` is the share of queries that occur that get a yes, `false` the share of the others; `precision` the share
    of right ones among as many of both. In these each group counts as much as any other; "as is" each query does.
    """
    share = {key: yes[members].mean() for key, members in members_of(questions).items()}
    recall, false = (np.mean([share[key] for key in share if key[0] is occurs]) for occurs in (True, False))
    occurs = np.array([question.occurs for question in questions])
    figures = {
        "recall": recall,
        "false": false,
        "precision": recall / (recall + false or 1),
        "recall as is": yes[occurs].mean(),
        "precision as is": (occurs & yes).sum() / max(yes.sum(), 1),
    }
    return {name: round(float(figure), 3) for name, figure in figures.items()}


def members_of(questions: Sequence[Question]) -> dict[tuple[bool, str], list[int]]:
    """The numbers of the questions of each group, those that occur apart from those that do not."""
    members: dict[tuple[bool, str], list[int]] = {}
    for i, question in enumerate(questions):
        members.setdefault((question.occurs, question.group), []).append(i)
    return members


def groups(questions: Sequence[Question], best: Numbers) -> list[dict[str, Any]]:
    """Print for each group the number of queries with yes at each cut-off, from (Q,) best confidences."""
    found = []
    for (occurs, group), members in members_of(questions).items():
        shares = {str(cut): round(float((best[members] >= cut).mean()), 3) for cut in CUT_OFFS}
        found.append({"group": group, "occurs": occurs, "queries": len(members), **shares})
        shown = " ".join(f"{cut}: {share:<6.3f}" for cut, share in shares.items())
        print(f"{'occurs' if occurs else 'does not':<9} {group:<16} {len(members):>4}  {shown}")
    return found


def alternatives(questions: Sequence[Question], answers: Answers) -> dict[str, dict[str, float]]:
    """Compute the figures for other prompts, other formulas, and cut-offs that are chosen with the truth known."""
    rows = answers.of(question.text for question in questions)
    measures = {
        "clipsearch": answers.confidence,
        **{bank: against(answers, prompts) for bank, prompts in BANKS.items()},
        "sum, not mean": against(answers, NEUTRAL, total=True),
        "mean over pictures": against(answers, NEUTRAL, same_for_all=True),
    }
    found = {}
    for name, measure in measures.items():
        best = measure[rows].max(axis=1)
        found[name] = {"auc": auc(questions, best), **judged(questions, best >= SURE)}
    for name, measure in (("clipsearch, best", answers.confidence), ("cosine, best", answers.cosines)):
        best = measure[rows].max(axis=1)
        cut = max(np.arange(0, 1, 0.005), key=lambda cut: gain(questions, best >= cut))
        found[f"{name} cut-off {cut:.3f}"] = {"auc": auc(questions, best), **judged(questions, best >= cut)}
    return found


def gain(questions: Sequence[Question], yes: Flags) -> float:
    """Recall less false alarms, the groups counting alike."""
    figures = judged(questions, yes)
    return figures["recall"] - figures["false"]


def auc(questions: Sequence[Question], best: Numbers) -> float:
    """The chance that a query that occurs has more than one that does not, of (Q,) `best`; groups count alike."""
    members = members_of(questions).items()
    yes, no = ([best[rows] for key, rows in members if key[0] is occurs] for occurs in (True, False))
    chances = [((a[:, None] > b) + (a[:, None] == b) / 2).mean() for a, b in product(yes, no)]
    return round(float(np.mean(chances)), 3)


def by_number(questions: Sequence[Question], confidence: Numbers) -> dict[str, float]:
    """The share of false alarms at `SURE` where the index holds but some of the pictures, each picked by lot."""
    rng, count = np.random.default_rng(0), confidence.shape[1]
    found = {}
    for size in (1, 10, 50, count):
        draws = [rng.permutation(count)[:size] for _ in range(50)]
        false = [judged(questions, (confidence[:, draw] >= SURE).any(axis=1))["false"] for draw in draws]
        found[str(size)] = round(float(np.mean(false)), 3)
    return found


def pictures(questions: Sequence[Question], returned: Flags) -> dict[str, float]:
    """Precision and recall of the pictures that queries return, of (Q, N) flags, for queries that occur.

    `CLASSES` are left out: it is not known whether a bicycle under a boy is a vehicle. Each group counts alike, and
    within it each picture.
    """
    figures = []
    for (occurs, _), members in members_of(questions).items():
        if occurs:
            judgeable = [i for i in members if questions[i].text not in CLASSES]
            true = np.stack([questions[i].true for i in judgeable])
            right = (returned[judgeable] & true).sum()
            figures.append((right / max(returned[judgeable].sum(), 1), right / true.sum()))
    precision, recall = np.mean(figures, axis=0)
    return {"precision": round(float(precision), 3), "recall": round(float(recall), 3)}


def by_folder(questions: Sequence[Question], answers: Answers, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each folder of samples how many true pairs of query and picture reach `SURE`, and how neutral prompts fit.

    Also how many would if the prompts counted the same for all pictures.
    """
    rows = answers.of(question.text for question in questions)
    pairs = np.stack([question.true & (question.text not in CLASSES) for question in questions])
    fit = (answers.scale * answers.cosines[answers.of(NEUTRAL)]).mean(axis=0)
    averaged = against(answers, NEUTRAL, same_for_all=True)
    found = {}
    for folder in unique(name.partition("/")[0] for name in names):
        inside = np.array([name.startswith(folder + "/") for name in names])
        recall, other = (
            (measure[rows][:, inside][pairs[:, inside]] >= SURE).mean() for measure in (answers.confidence, averaged)
        )
        figures = {"recall": recall, "recall, mean over pictures": other, "neutral logit": fit[inside].mean()}
        found[folder] = {name: round(float(figure), 3) for name, figure in figures.items()}
    return found


def worst(questions: Sequence[Question], confidence: Numbers, names: Sequence[str]) -> list[dict[str, Any]]:
    """The queries of each group that are furthest from the truth, with the picture of most confidence."""
    best = confidence.max(axis=1)
    found = []
    for (occurs, group), members in members_of(questions).items():
        for i in sorted(members, key=lambda i: best[i] if occurs else -best[i])[:WORST]:
            picture = names[confidence[i].argmax()]
            text, sure = questions[i].text, round(float(best[i]), 3)
            found.append({"group": group, "occurs": occurs, "query": text, "confidence": sure, "picture": picture})
    return found


# -- for people ------------------------------------------------------------------------------------------------


def show_judged(title: str, figures: dict[str, dict[str, float]]) -> None:
    """One table of what `judged` says."""
    print(f"\n{title}:")
    for name, row in figures.items():
        print(f"{name:<34} " + "  ".join(f"{label} {figure:.3f}" for label, figure in row.items()))


def show_rest(parts: dict[str, Any]) -> None:
    """False alarms by number of pictures, pictures returned, folders, and the worst."""
    print(f"\nfalse alarms at {SURE}, by number of pictures in the index: {parts['by_number_of_pictures']}")
    for key, title in (
        ("pictures", "pictures returned, by cut-off"),
        ("by_folder", f"true pairs at {SURE}, by folder"),
    ):
        print(f"\n{title}:")
        for name, row in parts[key].items():
            print(f"{name:<10} " + "  ".join(f"{label} {figure:.3f}" for label, figure in row.items()))
    print("\nfurthest from the truth:")
    for row in parts["worst"]:
        occurs = "occurs" if row["occurs"] else "does not"
        print(f"{occurs:<9} {row['group']:<16} {row['confidence']:.3f}  {row['query']}  [{row['picture']}]")


if __name__ == "__main__":
    main()
