"""`clipsearch tune`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.inputs import EncodingOption, say_damaged
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import FormatOptions, ModelOptions, print_rows, say, writing_output
from clipsearch.tasks.tuning.options import Method, Options, Trained

if TYPE_CHECKING:
    from clipsearch.datasets.captions import Captions
    from clipsearch.output.rows import Row
    from clipsearch.search.embedder import Embedder
    from clipsearch.tasks.tuning.measuring import Measure
    from clipsearch.tasks.tuning.result import Report

EXIT_NO_BETTER = 1
_DIGITS = ".4f"


@dataclass(frozen=True)
class CaptionOptions:
    """The options for reading captions."""

    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="DIR",
            help="The folder that paths of images start from. By default that of CAPTIONS.",
            show_default=False,
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="NAME", help="Take only this part of Karpathy's JSON, such as train.", show_default=False
        ),
    ] = None
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out images that are missing. Without it, they are an error.")
    ] = False
    encoding: EncodingOption = None

    def read(self, file: Path) -> Captions:
        """Read captions, and check that there is something to learn from them."""
        from clipsearch.datasets.captions import read_captions
        from clipsearch.tasks.tuning.captioned import check

        read = read_captions(
            file, images=self.images, split=self.split, skip_missing=self.skip_missing, encoding=self.encoding
        )
        if read.missing:
            say(f"Left out: {len(read.missing)} of {len(read.missing) + len(read.images)} images are missing.")
        check(read)
        return read


@dataclass(frozen=True)
class MethodOptions:
    """The options for how to tune."""

    method: Annotated[
        Method,
        typer.Option(
            "--method",
            help="query changes how words are read, in minutes, and an index answers it as it is. lora trains the "
            "model itself on the pictures: hours for many; it needs clipsearch[tune] and a new index. By default "
            "query; from 5,000 pairs on lora, if that is installed and there is a GPU.",
        ),
    ] = Method.AUTO
    towers: Annotated[
        Trained | None,
        typer.Option(
            "--towers",
            help="What lora trains: the reading of texts, of images, or both. With text, an index needs no update. By "
            "default both.",
            show_default=False,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            min=1,
            help="How often lora sees each picture at most; it ends early when held-out pictures are found no better. "
            "By default 20 times, or as often as fits into 1,000 steps with 64 pictures each, but 3 times at least.",
            show_default=False,
        ),
    ] = None
    max_fall: Annotated[
        float,
        typer.Option("--max-fall", metavar="X", min=0, max=1, help="How far recall@1 on --control may fall."),
    ] = 0.01
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The seed of the random numbers.")] = 0

    def options(self) -> Options:
        """Return what the tuning takes."""
        return Options(self.method, self.towers, self.epochs, self.seed, self.max_fall)


@grouped
def tune(
    captions: Annotated[
        Path,
        typer.Argument(
            metavar="CAPTIONS",
            help="Your pictures and what they show, in any of the formats that `clipsearch eval` reads: a table (CSV, "
            "TSV) with columns image and caption, COCO's, Karpathy's or Flickr8k's captions, or a folder or archive "
            "with a .txt or .json file beside each image.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="The folder to make for the new model.", show_default=False),
    ],
    control: Annotated[
        Path | None,
        typer.Option(
            "--control",
            metavar="CAPTIONS",
            help="Captions of pictures that the model knows already, to see that it does not forget them. By default "
            "the sample pictures, if they are there and the model is picturebook.",
            show_default=False,
        ),
    ] = None,
    how: MethodOptions,
    reading: CaptionOptions,
    output: FormatOptions,
    model: ModelOptions,
) -> int:
    """Fit a model to your own words: learn from captioned pictures what names and terms mean.

    With --method query, pictures keep their vectors: only how texts are read is changed, so an index needs no update,
    and `clipsearch query --model DIR` uses the new model at once. With --method lora, the model learns to see what is
    new as well; it can be stopped at any time, and the same command goes on. What is learned is tested on pictures that
    had no part in it. If it is no better, nothing is written. Exits with 0, with 1 if it is no better, and with 2 after
    an error.
    """
    from clipsearch.tasks.tuning.result import check_folder, check_method

    # 1. Check and read everything before a model is loaded.
    form, options = output.form(), how.options()
    check_method(options)
    check_folder(out)
    own = reading.read(captions)
    known = None if control is None else _read_control(control)
    # 2. Learn, and write what is better.
    with model.open() as embedder:
        report = _tuned(embedder, own, known, options, out)
        say_damaged(embedder.damaged, os.fsdecode)
        # 3. Report.
        _print(report, form)
        if report.folder is None:
            say(f"Nothing was written. {report.tuned.verdict}")
            return EXIT_NO_BETTER
        _say_next(report, report.folder, embedder)
    return 0


def _read_control(file: Path) -> Captions:
    from clipsearch.datasets.captions import read_captions

    return read_captions(file)


def _default_control(base: str) -> Captions | None:
    """Read the captions of the sample pictures, if the model is the bundled one and they are there."""
    from clipsearch.models.disk.catalog import BUNDLED

    file = Path(__file__).resolve().parents[2] / "sample-images" / "captions.csv"
    return _read_control(file) if base == BUNDLED and file.is_file() else None


def _tuned(embedder: Embedder, own: Captions, known: Captions | None, options: Options, out: Path) -> Report:
    """Tune, with progress, and write the result if it is better."""
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.tasks.tuning.result import base_for, tune_and_write

    known = known or _default_control(base_for(embedder).name)
    if known is None:
        say("There is no control set (--control), so what the model forgets is not seen.")
    with ProgressBar(doing="Reading") as bar:
        return tune_and_write(embedder, own, known, out, options=options, progress=bar)


def _print(report: Report, form: str) -> None:
    if form == "json":
        with writing_output():
            sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n")
        return
    measures = report.tuned.measures
    rows = list(map(_line, measures)) if form == "table" else list(map(_row, measures))
    print_rows(rows, form, numbers=dict.fromkeys(rows[0], _DIGITS))


def _line(one: Measure) -> Row:
    """Make a row for people."""
    return {
        "images": one.images,
        "metric": one.metric,
        "queries": one.queries,
        "before": _between(one.before, one.before_interval),
        "after": _between(one.after, one.after_interval),
        "change": _between(one.after - one.before, one.change_interval, "+.3f"),
    }


def _between(value: float, interval: tuple[float, float], form: str = ".3f") -> str:
    low, high = interval
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def _row(one: Measure) -> Row:
    """Make a row for programs."""
    row: Row = {"images": one.images, "metric": one.metric, "queries": one.queries}
    for name, value, interval in (
        ("before", one.before, one.before_interval),
        ("after", one.after, one.after_interval),
        ("change", one.after - one.before, one.change_interval),
    ):
        row = {**row, name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
    return row


def _say_next(report: Report, folder: Path, embedder: Embedder) -> None:
    """Say what to type to use the new model."""
    import shlex

    name = shlex.quote(str(folder))
    if report.same_images:
        say(f"Wrote {folder}. An index of {report.base.name} answers it as it is: clipsearch query --model {name} TERM")
        return
    roots = [shlex.quote(os.fsdecode(root.path)) for root in embedder.store.roots()] if embedder.store else ["PATH"]
    place = shlex.quote(f"{folder}-index")
    say(
        f"Wrote {folder}. Its vectors of pictures are new, so it needs an index of its own: "
        f"clipsearch index {' '.join(roots)} --model {name} --index {place}"
    )
