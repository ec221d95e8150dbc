"""`clipsearch embed`."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from clipsearch.cli.inputs import named_images, say_damaged
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import ModelOptions, say
from clipsearch.cli.text_options import TextOptions
from clipsearch.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from clipsearch.exchange.writing import Row
    from clipsearch.images.files import ImageFile
    from clipsearch.search.embedder import Embedder

    _Made = Generator[tuple[int, Mapping[str, int], npt.NDArray[np.float32]], None, None]

EXIT_UNREADABLE = 2
_TEXTS_TOGETHER = 256
"""Number of texts that are embedded at a time."""


_MOST_CROPS = 64
"""Largest number of crops: with inputs of 336 pixels, these are 22 MB of pixels for each image that is decoded."""


_VIEW = ("view", "h", "w")
"""Further columns with `--crops`: 0 for the whole, or the number of the crop, and the rows and columns of the crops."""


class Dtype(StrEnum):
    """The values of `--dtype`."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


class Tokens(StrEnum):
    """The values of `--tokens`."""

    PATCH = "patch"
    CLS = "cls"
    ALL = "all"


class _Layer(NamedTuple):
    """Which hidden states to write."""

    layer: int
    tokens: str
    crops: int | None


OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="OUT",
        help="FILE.npy, or a folder for embeddings.npy; names and model go beside it.",
        show_default=False,
    ),
]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="The type of the numbers in the file.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that exist already.")]


@grouped
def embed(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Pictures, and folders of pictures.", show_default=False),
    ] = None,
    *,
    out: OutOption,
    dtype: DtypeOption = Dtype.FLOAT32,
    force: ForceOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if a picture could not be read.")] = False,
    layer: Annotated[
        int | None,
        typer.Option(
            "--layer",
            metavar="N",
            help="Write the hidden states of this layer of the image tower instead of vectors: 0 is the input of the "
            "first layer, -1 the output of the last one, -2 that of the one before.",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        Tokens | None,
        typer.Option(
            "--tokens",
            help="With --layer: write the patches (the default), the class token, or all tokens, class token first.",
            show_default=False,
        ),
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option(
            "--crops",
            metavar="N",
            min=1,
            max=_MOST_CROPS,
            help="With --layer: write several views of each picture: the whole, then at most N crops, row by row.",
            show_default=False,
        ),
    ] = None,
    texts: TextOptions,
    model: ModelOptions,
) -> int:
    """Write the vectors of pictures or of texts to a .npy file, and their names to another file beside it.

    OUT.npy gets one unit vector in each row, OUT.csv the names in the same order, and OUT.json the model. Pictures that
    the index knows are not embedded again. Exits with 0 if it is done, and with 2 after an error.
    """
    from clipsearch.exchange.writing import save

    # 1. Check the options, and read the texts.
    are_texts = bool(texts.text) or texts.texts_from is not None
    if are_texts == bool(paths):
        raise InputError("Name pictures, or texts (--text TEXT, --texts-from FILE): one of the two.")
    asked = _asked(layer, tokens, crops)
    if are_texts and asked:
        raise InputError("--layer is for pictures: leave it out for texts.")
    words = [text for _, text in texts.read()] if are_texts else []
    # 2. Compute and write the vectors.
    unreadable: list[tuple[bytes, str]] = []
    with named_images(paths or ()) as (files, typed), model.open() as embedder:
        about: dict[str, object] = dict(zip(("model", "revision", "fingerprint"), embedder.identity, strict=True))
        columns: dict[str, type] = {"path": bytes} if files else {"text": str}
        if asked:
            about |= {name: value for name, value in asked._asdict().items() if value is not None}
            columns |= dict.fromkeys(_VIEW if crops else (), int)
        made = _layer(embedder, files, asked, unreadable) if asked else _images(embedder, files, unreadable)
        with closing(_named(made, files, typed) if files else _texts(embedder, words)) as items:
            shape = save(out, items, columns, about, dtype=dtype.value, replace=force)
    say_damaged(embedder.damaged, lambda path: typed.get(path, path))
    # 3. Report.
    _report(out, f"{' x '.join(map(str, shape))} {dtype.value}", unreadable, typed)
    return EXIT_UNREADABLE if strict and unreadable else 0


def _asked(layer: int | None, tokens: Tokens | None, crops: int | None) -> _Layer | None:
    """Put the options about layers together; None without one.

    Raises:
        InputError: there are others, but no layer.
    """
    if layer is not None:
        return _Layer(layer, (tokens or Tokens.PATCH).value, crops)
    if tokens or crops:
        raise InputError(
            f"{'--tokens says which tokens' if tokens else '--crops says of which views'} the hidden states of a layer "
            "are meant. Name it: --layer N"
        )
    return None


def _report(out: Path, what: str, unreadable: list[tuple[bytes, str]], typed: Mapping[bytes, str]) -> None:
    from clipsearch.output.paths import printable, shown

    for path, reason in unreadable:
        say(f"{printable(shown(os.fsencode(typed.get(path, path))))}: {reason}")
    left_out = f"; {len(unreadable)} could not be read" if unreadable else ""
    say(f"Wrote {what} to {out}, with names and model beside it{left_out}.")


def _images(embedder: Embedder, files: list[ImageFile], unreadable: list[tuple[bytes, str]]) -> _Made:
    """Yield index and vector of each image that can be read; the others are appended to `unreadable`."""
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.search.encoders import readable_images

    with ProgressBar(doing="Embedding") as bar, closing(readable_images(embedder, files, unreadable, bar)) as results:
        for place, vector in results:
            yield place, {}, vector


def _layer(embedder: Embedder, files: list[ImageFile], asked: _Layer, unreadable: list[tuple[bytes, str]]) -> _Made:
    """Yield index, view and hidden states of each image that can be read; the others are appended to `unreadable`."""
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.search.inner_layers import hidden_states

    with ProgressBar(doing="Embedding") as bar:
        views = hidden_states(
            embedder.image_tower,
            files,
            asked.layer,
            tokens=asked.tokens,
            unreadable=unreadable,
            damaged=embedder.damaged,
            crops=asked.crops,
            progress=bar,
        )
        with closing(views):
            for view in views:
                yield view.place, dict(zip(_VIEW, (view.number, *view.grid), strict=True)), view.states


def _named(
    made: _Made, files: list[ImageFile], typed: Mapping[bytes, str]
) -> Generator[tuple[Row, npt.NDArray[np.float32]], None, None]:
    """Yield each array with the path of its image, as it was typed, and what else is known of it."""
    with closing(made):
        for place, fields, array in made:
            yield {"path": os.fsencode(typed.get(files[place].path, files[place].path)), **fields}, array


def _texts(embedder: Embedder, texts: list[str]) -> Generator[tuple[Row, npt.NDArray[np.float32]], None, None]:
    for start in range(0, len(texts), _TEXTS_TOGETHER):
        block = texts[start : start + _TEXTS_TOGETHER]
        for text, vector in zip(block, embedder.embed_texts(block), strict=True):
            yield {"text": text}, vector
