"""`clipsearch import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.inputs import EncodingOption, check_encoding
from clipsearch.cli.options import IndexOption, JsonOption, ModelOption, VerboseOption, WaitOption, say
from clipsearch.errors import InputError
from clipsearch.system.places import current_folder

if TYPE_CHECKING:
    from clipsearch.exchange.importing import Imported
    from clipsearch.exchange.reading import Part


def import_(
    vectors: Annotated[
        Path | None,
        typer.Argument(metavar="[VECTORS]", help="A .npy file with one vector in each row.", show_default=False),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Argument(
            metavar="[NAMES]",
            help="The paths of their pictures in the same order: .csv, .tsv, .jsonl or .parquet with a column path (or "
            "image_path), or .txt with one path in each line.",
            show_default=False,
        ),
    ] = None,
    *,
    clip_retrieval: Annotated[
        Path | None,
        typer.Option(
            "--clip-retrieval",
            metavar="DIR",
            help="Import the output folder of clip-retrieval inference, with img_emb_*.npy and metadata_*.parquet, "
            "instead of VECTORS and NAMES.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    encoding: EncodingOption = None,
    normalise: Annotated[
        bool,
        typer.Option(
            "--normalise", help="Scale the vectors to length 1. Without it, vectors of another length are an error."
        ),
    ] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out pictures that are missing or unreadable.")
    ] = False,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="Add this folder to the index, as if it had been indexed. By default the common folder of all "
            "pictures. May be repeated.",
            show_default=False,
        ),
    ] = None,
    index: IndexOption = None,
    wait: WaitOption = 0,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> int:
    """Import vectors that were made elsewhere into an index.

    Everything is checked before anything is written: shapes, lengths, that the pictures can be read and, on some of
    them, that the model makes the same vectors. The index is written to .clipsearch in the current folder. Exits
    with 0 if it is done, and with 2 after an error.
    """
    from clipsearch.api import IndexingModel
    from clipsearch.cli.log import show_log
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.exchange.importing import import_vectors
    from clipsearch.exchange.reading import model_named
    from clipsearch.index_choice import index_folder

    parts = _parts(vectors, names, clip_retrieval)
    check_encoding(encoding, names)
    show_log(verbose=verbose)
    folder = index_folder(index, may_be_new=True)
    with ProgressBar(doing="Reading") as bar:
        chosen = IndexingModel(model, otherwise=model_named(parts[0].vectors), progress=bar)
        done = import_vectors(
            folder,
            parts,
            chosen,
            progress=bar,
            start=current_folder(),
            roots=root or (),
            normalise=normalise,
            skip_missing=skip_missing,
            wait=wait,
            encoding=encoding,
        )
    _report(done, folder, chosen.choice.name)
    if json:
        _print_json(done)
    return 0


def _parts(vectors: Path | None, names: Path | None, clip_retrieval: Path | None) -> list[Part]:
    """Return the files that the arguments name."""
    from clipsearch.exchange.reading import Part, clip_retrieval_parts

    if clip_retrieval and not vectors:
        return clip_retrieval_parts(clip_retrieval)
    if vectors and names and not clip_retrieval:
        return [Part(vectors, names)]
    raise InputError("Name two files, VECTORS and NAMES, or one folder: --clip-retrieval DIR.")


def _print_json(done: Imported) -> None:
    from clipsearch.output.rows import json_bytes, json_row

    summary = done._asdict() | {
        "skipped": [json_row({"path": path, "reason": reason}) for path, reason in done.skipped],
        "roots": [json_row({"path": path}) for path in done.roots],
        "lowest_cosine": round(done.lowest_cosine, 6),
    }
    sys.stdout.buffer.write(json_bytes(summary, indent=2))


def _report(done: Imported, folder: Path, model: str) -> None:
    from clipsearch.output.paths import printable, shown
    from clipsearch.system.counting import plural

    for path, reason in done.skipped:
        say(f"Left out {printable(shown(path))}: {reason}")
    images = plural(done.compared, "image")
    say(f"Compared {images} with the vectors of {model}: the lowest cosine is {done.lowest_cosine:.4f}.")
    also = f", {done.known} known" if done.known else ""
    also += f", {len(done.skipped)} left out" if done.skipped else ""
    say(f"{plural(done.imported, 'image')} imported{also}; {plural(done.images, 'image')} in the index {folder}")
