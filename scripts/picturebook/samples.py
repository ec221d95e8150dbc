"""The sample pictures: held-out scenes, composed with care, to try the search on.

`_TABLE` lists them. Nothing in them was trained on: every figure's combination of kind, action, colour and
place is held out. Each scene is drawn many times as a thumbnail; the best composition is drawn large, framed
and written.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from PIL import Image

from .canvas import COLOURS, STYLES, Style
from .caption import VERBS, article, plural
from .emoji import MASS_NOUNS, PLURAL_NOUNS
from .places import PLACES, TIMES, WEATHER
from .render import Drawing, render
from .scene import KINDS, Entity, Scene, is_held_out

_SIZES = {"square": (384, 384), "wide": (416, 312), "tall": (312, 416)}
_NEAREST = {"square": 0.8, "wide": 0.7, "tall": 0.7}
"""How far the frame may close in: its shorter side, as a fraction of the page's side."""
_MARGIN = 0.04
"""Free paper around the figures that a frame makes room for, as a fraction of the page's side."""
_SLACK = 0.012
"""Least margin at an edge of the page, in the same unit."""
_PAGE = 1280
"""Pixels a side at which a sample is drawn before it is reduced, which smooths its edges."""
_THUMBNAIL = 192
_TRIES = 80
SHARPER = 0.3
"""How much of its style's softening a sample keeps: on a large picture all of it looks out of focus."""
_STYLES = (
    "picture book", "pastel", "watercolour", "paper cut", "picture book", "watercolour", "pastel", "crayon",
    "paper cut", "picture book", "pastel", "comic", "watercolour", "paper cut",
)  # fmt: skip
"""Taken in turn; a row of the table may name another."""
_SUFFIXES = (".png", ".jpg", ".webp", ".jpg", ".webp")
_NUMBERS = {2: "two", 3: "three", 4: "four"}

_TABLE = """
# Under its [folder], each picture:
# what | place, and time and weather unless it is a dry day | shape unless square, style, take

[dogs]
gray dog sleep | farm | picture book
orange dog sleep | garden | pastel
black dog sleep | mountain | paper cut
orange dog run | city | picture book
brown dog run | forest | paper cut
gray dog run | desert | picture book 3
orange dog sit | park | picture book 1
black dog sit | playground | pastel
black dog sit | road | paper cut

[cats]
orange cat sit on yellow sofa | room
white cat eat | room
black cat eat | kitchen
gray cat eat | garden | wide
orange cat run | snow
white cat eat | beach
orange cat play | kitchen
gray cat play | beach sunset
black cat play | forest | wide
black cat stand | park sunset
gray cat play | desert
gray cat jump | kitchen
orange cat eat | playground
white cat jump | farm
white cat sit | mountain night
2 orange cat play | room night
white cat sit on green table | room

[farm]
brown horse stand | farm
white horse eat | park sunset
gray horse jump | desert | wide
black horse run | farm sunset
black horse run | snow
2 white cow stand | farm sunset
brown cow eat | garden
white cow jump | park
pink pig eat | mountain
pink pig play | mountain sunset
3 white sheep eat | park
white sheep sit | mountain
black sheep jump | garden
black goat jump | farm | wide
gray goat run | snow sunset
brown goat play | desert
white chicken eat + black chicken eat | garden
2 brown rabbit stand | farm
white rabbit sit | garden | tall
llama | garden | tall

[wild]
yellow lion stand | garden sunset
yellow lion run | city
yellow lion sit | stage
orange tiger sit | snow
orange tiger run | beach sunset
orange tiger stand | park night
gray elephant play | stage
gray elephant eat | mountain
brown bear run | forest
black bear eat | mountain sunset
orange fox run | beach sunset | wide
orange fox play | garden
white zebra play | beach sunset
yellow giraffe eat | forest
yellow giraffe run | park sunset
brown deer jump | mountain | wide
2 brown deer stand | park
brown squirrel sit | park
gray squirrel eat | forest
white mouse play | garden
monkey | forest
panda | beach | wide
leopard | snow | wide
t-rex | city

[birds]
red bird fly | forest | wide
blue bird fly | forest sunset
white bird fly | sky sunset
3 black bird fly | garden
yellow bird stand | farm
yellow bird eat | beach
green bird stand | playground
brown duck swim | sea | wide
yellow duck stand | room
white duck eat | park
3 penguin stand | snow night
white owl fly | forest night | tall
gray owl stand | mountain night | tall
flamingo | garden | tall
peacock | mountain
goose | farm | tall
rooster | park

[sea]
4 red fish swim | underwater
3 yellow fish swim | underwater
red fish swim + yellow fish swim | underwater
2 blue whale swim | underwater
red fish swim + blue whale swim | underwater
2 purple octopus swim | sea
purple octopus swim + brown turtle swim | sea
2 brown turtle swim | sea sunset
red fish swim | sea sunset
2 shark | sea sunset
shark + canoe | sea
lobster | beach

[garden]
yellow butterfly fly | beach
2 white butterfly fly | park
blue butterfly fly | city
yellow snail | mountain
bee | farm | wide
3 bee | forest
ant | park
tulip | mountain
3 tulip | snow | wide
sunflower | city
rose | beach
3 pink flower | farm
pink flower | mountain sunset
2 green cactus | desert
palm tree | desert sunset
clover | park
green frog sit | snow

[people]
blue man ride | park sunset
purple man run | beach sunset
green man read | garden
orange man dance | mountain
purple man paint | mountain
red man wave | road
orange man play | beach
white woman read | park
red woman dance | garden
green woman cook | kitchen
orange woman ride | beach sunset | wide
yellow woman eat | garden
blue woman run | park
red boy read | garden
green boy play | playground
purple boy ride | farm | wide
blue boy jump | room
pink girl ride | road
red girl dance | beach
2 yellow girl wave | park
green girl cook | kitchen
purple girl play | snow
white baby crawl | beach
red baby sleep | room

[vehicles]
red car | city | wide
black car | road sunset
orange car | beach sunset
2 yellow car | farm
green truck | city sunset
red truck | snow
green bus | park
white bus | road
red bus | playground
green train | mountain
orange train | desert sunset
orange bicycle | beach
yellow motorcycle | city night | wide
red tractor | farm
yellow tractor | garden
red airplane fly | sky | wide
yellow airplane fly | sea sunset
yellow helicopter fly | sky
orange helicopter fly | mountain | wide
green rocket fly | space | tall
3 pink hot air balloon fly | city
orange hot air balloon fly | desert sunset
police car | road | wide
fire truck | playground night

[food]
banana | park
strawberry | kitchen | wide
2 watermelon | park
pineapple | playground
3 tangerine | park
kiwi | farm
carrot | garden
3 red apple | forest
green apple | playground
yellow apple | park
croissant | kitchen
pancakes | kitchen | wide
hamburger | beach | wide
pizza | room
popcorn | room
ice cream | farm | tall
2 donut | room
3 cookie | kitchen
cupcake | forest | tall
pink cake | kitchen
pink cake | park
soup | garden
tropical drink | room

[buildings]
blue house | park
yellow house | snow night
red house | road night
green house | farm
gray castle | forest night
blue castle | desert sunset | wide
yellow castle | park
white church | farm
orange church | beach
green lighthouse | mountain sunset | tall
orange windmill | farm
purple windmill | beach sunset
blue tent | garden
pink tent | mountain night
ferris wheel | farm
school | snow | take 1
tower | park sunset | tall take 2

[objects]
orange lamp | room night
pink chair | room
green chair | beach
blue bench | garden | wide
pink bed | room
red umbrella | beach sunset
green cup | room night
blue bottle | kitchen | tall
purple book | kitchen
orange hat | room
yellow backpack | playground
yellow clock | room
camera | park | wide
telephone | park
key | garden | wide
candle | room night | tall
crown | room | wide
microscope | kitchen
globe | beach

[toys]
red ball | snow
3 yellow balloon | park
pink balloon | garden | tall
pink kite fly | beach
orange kite fly | sky sunset | tall
orange robot wave | park
red robot stand | stage
teddy bear | playground | tall
3 red gift | room
blue gift | park
bowling pins | stage
brown guitar | park | tall
blue guitar | garden
violin | stage | wide
drum | forest
trumpet | farm | wide

[weather]
red umbrella | park rain
black umbrella | road rain
white woman run | park rain
red boy run | farm rain
green bus | playground rain
yellow duck stand | road rain
taxi | road night rain | take 16
purple house | park night rain
white bear run | forest snow
brown bear stand | mountain snow
2 penguin stand | snow snow
pink church | snow snow
yellow woman run | farm snow
purple airplane fly | snow snow
"""

_README = """# Sample pictures

{count} pictures to try the search on: picture-book scenes in six hands, in folders by subject.
`captions.csv` says in one sentence what each shows (`image,caption`; paths are relative to this folder).

They are made by `python -m scripts.picturebook samples sample-images`; the same versions of Pillow and NumPy
and of the font give the same bytes. The bundled model `picturebook` never saw any of them: every combination
of figure, action, colour and place here was held out of its training. `clipsearch.toml` makes it the model
for this folder.

Licence: the drawings are part of this project and under its MIT licence. Some figures (most food, small
objects and a few animals) are glyphs of [Noto Color Emoji](https://github.com/googlefonts/noto-emoji),
copyright Google, under the SIL Open Font License 1.1.
"""
_CONFIG = """# These pictures are drawn. The small bundled model knows drawings (and nothing of photographs),
# so here it needs no download.
model = "picturebook"
"""


@dataclass(frozen=True)
class Sample:
    """One row of the table."""

    name: str
    """File name below the samples' folder, with forward slashes."""
    scene: Scene
    shape: str
    style: Style
    take: int
    """Another number draws another picture of the same scene."""


def samples(out: Path) -> None:
    """Draw all samples into `out`, with captions, a README and a configuration beside them."""
    rows = list(_rows())
    for sample in rows:
        path = out / sample.name
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(_picture(sample), path)
    with (out / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "caption"])
        writer.writerows((sample.name, plain_caption(sample.scene)) for sample in rows)
    (out / "README.md").write_text(_README.format(count=len(rows)), encoding="utf-8", newline="\n")
    (out / "clipsearch.toml").write_text(_CONFIG, encoding="utf-8", newline="\n")


def plain_caption(scene: Scene) -> str:
    """One tidy sentence that says everything about `scene`, without a full stop."""
    text = f"{_said(scene)} {_where(scene)}"
    if scene.time != "day":
        text = f"{text} {TIMES[scene.time][0]}"
    return f"{text} {WEATHER[scene.weather][0]}" if scene.weather else text


def _said(scene: Scene) -> str:
    """Describe the entities of a scene and their actions."""
    first, *others = scene.entities
    if not others:
        return clause(first)
    other = others[0]
    if scene.relation:
        return f"{clause(first)} {scene.relation} {noun_phrase(other)}"
    if first.action and first.action == other.action:
        return f"{noun_phrase(first)} and {noun_phrase(other)} are {_doing(first.action)}"
    return f"{clause(first)} {'and' if other.action else 'next to'} {clause(other)}"


def _where(scene: Scene) -> str:
    """The place, as it is said of such figures: one swims in the sea and flies over it."""
    usual = PLACES[scene.place][0]
    actions = {entity.action for entity in scene.entities}
    if scene.place == "room":
        return "in the living room"
    if "swim" in actions and scene.place == "sea":
        return "in the sea"
    return usual.replace("on ", "over ") if "fly" in actions and usual.startswith("on ") else usual


def _doing(action: str) -> str:
    return "playing with a ball" if action == "play" else VERBS[action].ing[0]


def clause(entity: Entity) -> str:
    """The noun phrase, and what its figures do."""
    are = "are" if entity.count > 1 else "is"
    return f"{noun_phrase(entity)} {are} {_doing(entity.action)}" if entity.action else noun_phrase(entity)


def noun_phrase(entity: Entity) -> str:
    """Number, colour and noun; the colour goes unsaid where the kind has but one."""
    kind = KINDS[entity.kind]
    noun = kind.nouns[0] if entity.count == 1 else plural(kind.nouns[0])
    colour = entity.colour if len(kind.colours) > 1 else None
    wears = colour is not None and "person" in kind.hypernyms
    word = f"{colour} {noun}" if colour and not wears else noun
    if entity.count > 1:
        word = f"{_NUMBERS[entity.count]} {word}"
    elif noun not in PLURAL_NOUNS | MASS_NOUNS:
        word = article(word)
    return f"{word} in {_worn(entity)}" if wears else word


def _worn(entity: Entity) -> str:
    """What somebody's colour is the colour of: "a red dress"."""
    if entity.kind == "baby":
        return str(entity.colour)
    worn = f"{entity.colour} {'dress' if entity.kind in ('woman', 'girl') else 'shirt'}"
    return plural(worn) if entity.count > 1 else article(worn)


def _rows() -> Iterator[Sample]:
    """The table, read."""
    folder, number = "", 0
    for line in _TABLE.splitlines():
        if line.startswith("["):
            folder, number = line.strip("[]"), 0
        elif line and not line.startswith("#"):
            yield _row(line, folder, number)
            number += 1


def _row(line: str, folder: str, number: int) -> Sample:
    what, where, how = (*(part.strip() for part in line.split("|")), "")[:3]
    scene = _scene(what, where)
    for entity in scene.entities:
        if not is_held_out(entity, scene.place):
            message = f"{line!r} of the samples is not held out of training"
            raise ValueError(message)
    turn = Random(f"{folder}-{number}")
    usual = _STYLES[(number + len(folder)) % len(_STYLES)]
    named = next((style.name for style in STYLES if style.name in how), usual)
    style = next(style for style in STYLES if style.name == named)
    style = replace(style, soften=style.soften * SHARPER)
    shape = next((word for word in how.split() if word in _SIZES), "square")
    take = int(next((word for word in how.split() if word.isdigit()), 0))
    stem = f"dog_{number}" if folder == "dogs" else _stem(scene)
    return Sample(f"{folder}/{stem}{turn.choice(_SUFFIXES)}", scene, shape, style, take)


def _scene(what: str, where: str) -> Scene:
    """A scene from its two columns: "cat sit on red sofa", "room night"."""
    relation = next((word for word in ("on", "under") if f" {word} " in what), None)
    entities = tuple(_entity(part) for part in what.split(f" {relation or '+'} "))
    place, *more = where.split()
    time = next((word for word in more if word in TIMES), "day")
    return Scene(entities, place, time, next((word for word in more if word in WEATHER), None), relation)


def _entity(text: str) -> Entity:
    """An entity from "[count] [colour] kind [action]"."""
    words = text.split()
    count = int(words.pop(0)) if words[0].isdigit() else 1
    colour = words.pop(0) if words[0] in COLOURS else None
    action = words.pop() if words[-1] in VERBS else None
    return Entity(" ".join(words), count, action, colour)


def _stem(scene: Scene) -> str:
    """A file name's stem that says what the picture shows."""
    words = []
    for entity in scene.entities:
        kind = KINDS[entity.kind]
        words += [_NUMBERS[entity.count]] if entity.count > 1 else []
        colour = [entity.colour] if entity.colour and len(kind.colours) > 1 else []
        noun = kind.name if entity.count == 1 else plural(kind.name)
        words += [noun, "in", *colour] if "person" in kind.hypernyms else [*colour, noun]
        words += [VERBS[entity.action].ing[0]] if entity.action else []
    words += [scene.place, scene.time if scene.time != "day" else "", scene.weather or ""]
    return "_".join(filter(None, words)).lower().replace(" ", "_").replace("-", "_")


def _picture(sample: Sample) -> Image.Image:
    """The best composed of many drawings of one scene, drawn large, cut to its frame and reduced."""
    seeds = [f"sample-{sample.name.partition('.')[0]}-{sample.take}-{i}" for i in range(_TRIES)]
    thumbnails = [render(sample.scene, Random(seed), _THUMBNAIL, style=sample.style, crop=False) for seed in seeds]
    merits = [_merit(drawing, sample) for drawing in thumbnails]
    best = merits.index(max(merits))
    window = _window([box for _, box in thumbnails[best].figures], sample.shape)
    if window is None:
        message = f"no drawing of {sample.name} fits its frame"
        raise ValueError(message)
    page = render(sample.scene, Random(seeds[best]), _PAGE, style=sample.style, crop=False).picture
    left, top, right, bottom = (value * _PAGE for value in window)
    return page.resize(_SIZES[sample.shape], Image.Resampling.LANCZOS, (left, top, right, bottom))


def _merit(drawing: Drawing, sample: Sample) -> float:
    """How large and how central the figures are; negative where they are cut off or hide each other."""
    scene, boxes = sample.scene, [box for _, box in drawing.figures]
    window = _window(boxes, sample.shape)
    if window is None or (scene.relation is None and _overlap(boxes)):
        return -1.0
    left, top, right, bottom = window
    x0, y0, x1, y1 = _union(boxes)
    off = abs(x0 + x1 - left - right) / (right - left)
    if scene.place == "sea" and all(entity.action != "fly" for entity in scene.entities):
        off += 2 * (1 - min(box[3] for box in boxes))  # in the water, not in the air above it
    else:
        off += 0.5 * abs(y0 + y1 - top - bottom) / (bottom - top)
    # A glyph is large enough, and its box is largest when it is tilted.
    drawn = all(KINDS[entity.kind].draw for entity in scene.entities)
    size = min(max(box[2] - box[0], box[3] - box[1]) for box in boxes) / min(right - left, bottom - top)
    return max(0.0, 3 + (size if drawn else 0) - off)


def _overlap(boxes: list[tuple[float, float, float, float]]) -> bool:
    """Whether any two figures share more than a sliver."""
    for i, one in enumerate(boxes):
        for two in boxes[:i]:
            wide = min(one[2], two[2]) - max(one[0], two[0])
            high = min(one[3], two[3]) - max(one[1], two[1])
            area = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two))
            if wide > 0 and high > 0 and wide * high > 0.05 * area:
                return True
    return False


def _union(boxes: list[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _window(boxes: list[tuple[float, float, float, float]], shape: str) -> tuple[float, float, float, float] | None:
    """The part of the page to show, as fractions of its side; None where the figures do not fit.

    They must lie within the central square of the frame, since that is all that CLIP looks at.
    """
    left, top, right, bottom = _union(boxes)
    if min(left, top, 1 - right, 1 - bottom) < 0.01:
        return None
    width, height = _SIZES[shape]
    wide, high = width / min(width, height), height / min(width, height)
    short = max(_NEAREST[shape], right - left + 2 * _MARGIN, bottom - top + 2 * _MARGIN)
    if short > 1 / max(wide, high):
        return None
    x = min(max((left + right - short * wide) / 2, 0.0), 1 - short * wide)
    y = min(max((top + bottom - short * high) / 2, 0.0), 1 - short * high)
    x_in, y_in = x + short * (wide - 1) / 2, y + short * (high - 1) / 2
    inside = x_in + _SLACK < left and right < x_in + short - _SLACK
    fits = inside and y_in + _SLACK < top and bottom < y_in + short - _SLACK
    return (x, y, x + short * wide, y + short * high) if fits else None


def _save(picture: Image.Image, path: Path) -> None:
    if path.suffix == ".png":
        picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    elif path.suffix == ".jpg":
        picture.save(path, quality=86, optimize=True)
    else:
        picture.save(path, quality=84, method=6)
