"""`clipsearch classify`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.classify_inputs import Source, open_source
from clipsearch.cli.classify_rows import LabelledImage, LabelOrderOptions, labelled, print_labelled
from clipsearch.cli.inputs import EncodingOption, check_encoding, check_inputs, text_lines
from clipsearch.cli.leftovers import put_back_leftovers
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import FormatOptions, ModelOptions, say, screen_width, writing_output
from clipsearch.cli.search_options import FilterOptions
from clipsearch.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from clipsearch.output.sorting import Step
    from clipsearch.tasks.classification import Classified, Label

EXIT_NOTHING, EXIT_STRICT = 1, 2
FOLDERS = "folders"
"""The value of `--truth` that is not the name of a file."""


@dataclass(frozen=True)
class LabelOptions:
    """The options for labels and templates."""

    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", "-l", metavar="LABEL", help="What a picture may show. May be repeated.", show_default=False
        ),
    ] = None
    labels_from: Annotated[
        str | None,
        typer.Option(
            "--labels-from",
            metavar="FILE",
            help="More labels: each line of this file (- for standard input) is one, or a label, a tab and the words "
            "to put into templates.",
            show_default=False,
        ),
    ] = None
    template: Annotated[
        list[str] | None,
        typer.Option(
            "--template",
            metavar="TEXT",
            help="A sentence with {} in place of the label. May be repeated; the vectors are averaged. By default "
            '"a photo of a {}."',
            show_default=False,
        ),
    ] = None
    templates_from: Annotated[
        str | None,
        typer.Option(
            "--templates-from",
            metavar="FILE",
            help="More templates: each line of this file is one.",
            show_default=False,
        ),
    ] = None

    def labels(self, otherwise: Sequence[str], encoding: str | None) -> list[Label]:
        """Return the labels of the options, or else `otherwise`, the labels that the images are known to have.

        Raises:
            InputError: there are fewer than two, or two are the same.
        """
        from clipsearch.tasks.classification import Label, checked_labels

        labels = [Label.parse(text) for text in self.label or ()]
        if self.labels_from is not None:
            labels += [Label.parse(line) for _, line in text_lines(self.labels_from, "label", encoding)]
        if not labels and not otherwise:
            raise InputError("There is no label. Say what a picture may show: --label cat --label dog")
        return checked_labels(labels or otherwise)

    def templates(self, encoding: str | None) -> Sequence[str]:
        """Return the templates of the options, or else the default.

        Raises:
            InputError: a template has no place for the label.
        """
        from clipsearch.tasks.classification import TEMPLATES, checked_templates

        texts = list(self.template or ())
        if self.templates_from is not None:
            texts += [line.strip() for _, line in text_lines(self.templates_from, "template", encoding)]
        return checked_templates(texts or TEMPLATES)


@dataclass(frozen=True)
class TruthOptions:
    """The options for the true labels of images."""

    truth: Annotated[
        str | None,
        typer.Option(
            "--truth",
            metavar="folders|FILE",
            help="The true labels: folders if the folder of each picture is named after its label, or a table (CSV, "
            "TSV) with columns image (or path, filename, filepath) and label. Also used as labels if none are given.",
            show_default=False,
        ),
    ] = None
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Print how good the labels are instead of the labels: top-1 and top-5 accuracy, precision and recall "
            "of each label, and the confusion matrix.",
        ),
    ] = False
    coarse: Annotated[
        bool, typer.Option("--coarse", help="Take the 20 coarse labels of CIFAR-100 instead of the 100 fine ones.")
    ] = False

    @property
    def table(self) -> str | None:
        """The file with true labels; None if there is none."""
        return None if self.truth == FOLDERS else self.truth

    def check(self, sorting: SortOptions, order: LabelOrderOptions, min_probability: float | None) -> None:
        """Raise an InputError if the options contradict each other, before anything is read."""
        if self.report and (sorting.folder or min_probability):
            raise InputError(
                "A report is about all pictures: leave out --min-probability, --move-into and --copy-into."
            )
        if self.report and order != LabelOrderOptions():
            raise InputError("A report has no order of pictures: leave out --sort, --reverse and --by.")

    def of(self, source: Source, encoding: str | None) -> list[str] | None:
        """Return the true label of each image of `source`; None if they are not known.

        Raises:
            InputError: the file cannot be read, or has no label for an image.
        """
        from clipsearch.datasets.labels import folder_labels, labels_of, table_labels

        if self.truth is None:
            return source.truth
        if source.truth is not None:
            raise InputError("CIFAR's files say themselves what pictures show: leave --truth out.")
        if self.truth == FOLDERS:
            return folder_labels(source.paths)
        file = Path(self.truth)
        return labels_of(source.paths, table_labels(file, encoding=encoding), file)

    def expected(self, truth: list[str] | None, labels: Sequence[Label]) -> npt.NDArray[np.int64]:
        """Return the (N,) indices in `labels` of the true labels, for a report.

        Raises:
            InputError: the true labels are not known, or one is not in `labels`.
        """
        from clipsearch.tasks.classification import positions

        if truth is None:
            raise InputError("A report needs to know what pictures really show: --truth folders, or --truth FILE.csv")
        return positions(truth, labels)


@dataclass(frozen=True)
class SortOptions:
    """The options for moving or copying images into folders."""

    move_into: Annotated[
        Path | None,
        typer.Option(
            "--move-into",
            metavar="DIR",
            help="Move pictures into DIR/LABEL; no file is overwritten.",
            show_default=False,
        ),
    ] = None
    copy_into: Annotated[
        Path | None,
        typer.Option(
            "--copy-into",
            metavar="DIR",
            help="Copy pictures into DIR/LABEL; no file is overwritten.",
            show_default=False,
        ),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print where pictures would be moved or copied to.")
    ] = False

    @property
    def folder(self) -> Path | None:
        """The target folder; None if the images are neither moved nor copied."""
        return self.move_into or self.copy_into

    def check(self) -> None:
        """Raise an InputError if the options contradict each other, before anything is read."""
        if self.move_into and self.copy_into:
            raise InputError("Pictures are either moved or copied: leave --move-into or --copy-into out.")
        if self.dry_run and not self.folder:
            raise InputError("--dry-run is for --move-into and --copy-into.")

    def check_source(self, source: Source) -> None:
        """Check that the images can be moved or copied into folders.

        Raises:
            InputError: the images are not files of their own.
        """
        if self.folder and source.numbers:
            raise InputError("Pictures within a file of CIFAR cannot be moved or copied into folders.")
        if self.folder and not source.is_lasting:
            raise InputError("What comes from standard input or a pipe cannot be moved or copied into folders.")

    def plan(self, images: Sequence[LabelledImage], labels: Sequence[Label]) -> list[Step]:
        """Plan the moves or copies of images with labels."""
        if self.folder is None:
            return []
        from clipsearch.output.sorting import folder_names, plan

        names = folder_names([label.name for label in labels])
        move = self.move_into is not None
        return plan([(image.path_bytes, names[image.labels[0]]) for image in images], self.folder, move=move)


@grouped
def classify(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Folders or image files, or files of CIFAR-10 or CIFAR-100 (python version).",
            show_default=False,
        ),
    ] = None,
    *,
    indexed: Annotated[
        bool,
        typer.Option(
            "--indexed",
            help="Classify the pictures of the index that pass the filters, instead of PATHs.",
        ),
    ] = False,
    naming: LabelOptions,
    top: Annotated[
        int, typer.Option("--top", metavar="K", min=1, help="The number of labels to show for each picture.")
    ] = 1,
    min_probability: Annotated[
        float,
        typer.Option(
            "--min-probability", metavar="P", min=0, max=1, help="Only labels with at least this probability."
        ),
    ] = 0,
    known: TruthOptions,
    encoding: EncodingOption = None,
    sorting: SortOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if a picture could not be read.")] = False,
    filters: FilterOptions,
    order: LabelOrderOptions,
    output: FormatOptions,
    model: ModelOptions,
) -> int:
    """Predict which of several labels fits each picture best, without training.

    Can sort the pictures into a folder for each label, and report how good the labels are if the true ones are known.
    Exits with 0, with 1 if no picture got a label, and with 2 after an error.
    """
    form = output.form()
    check_inputs(naming.labels_from, naming.templates_from, filters.files_from)
    sorting.check()
    known.check(sorting, order, min_probability)
    check_encoding(encoding, naming.labels_from, naming.templates_from, known.table)
    templates = naming.templates(encoding)
    with open_source(paths or [], filters, model, indexed=indexed, coarse=known.coarse) as (embedder, source):
        if not source.paths:
            print_labelled([], [], None, form, order.by)
            return EXIT_NOTHING
        # 1. Read the labels and the true labels.
        sorting.check_source(source)
        order.check(source)
        truth = known.of(source, encoding)
        labels = naming.labels(source.labels or sorted(set(truth or ())), encoding)
        expected = known.expected(truth, labels) if known.report else None
        # 2. Predict the labels.
        from clipsearch.tasks.classification import TOP, Classifier

        classifier = Classifier.of(labels, embedder, templates)
        found = source.predict(classifier, max(top, TOP) if known.report else top)
        has_index = embedder.uses_index
    _complain(found)
    # 3. Print a report, or the labels.
    if expected is not None:
        code = _report(found, expected, labels, form)
    else:
        code = _put(labelled(found, source, truth, min_probability), labels, sorting, form, order, has_index=has_index)
    return EXIT_STRICT if strict and found.unreadable else code


def _complain(found: Classified) -> None:
    """Report images that cannot be read.

    Raises:
        InputError: no image can be read.
    """
    from clipsearch.output.paths import printable, shown

    for path, reason in found.unreadable:
        say(f"Cannot read {printable(shown(path))}: {reason}")
    if not found.read:
        raise InputError("None of the pictures can be read.")


# -- output ----------------------------------------------------------------------------------------------------------


def _put(
    images: list[LabelledImage],
    labels: Sequence[Label],
    sorting: SortOptions,
    form: str,
    order: LabelOrderOptions,
    *,
    has_index: bool,
) -> int:
    """Move or copy images if asked for, print them with their labels, and return the exit code."""
    images = order.applied(images)
    if not sorting.folder:
        print_labelled(images, labels, None, form, order.by)
        return 0 if images else EXIT_NOTHING
    from clipsearch.output.sorting import carry_out, in_words

    move = sorting.move_into is not None
    if move and not sorting.dry_run:
        put_back_leftovers([os.path.dirname(image.path_bytes) for image in images])
    steps = sorting.plan(images, labels)
    done: list[Step] = []
    try:
        for step in steps if sorting.dry_run else carry_out(steps, move=move):
            done.append(step)  # noqa: PERF402  (after an error, what was done is printed)
    finally:
        print_labelled(images[: len(done)], labels, done, form, order.by)
    say(in_words(done, sorting.folder, move=move, dry_run=sorting.dry_run))
    if has_index and move and not sorting.dry_run and not all(step.there for step in done):
        say("To bring the index up to date: clipsearch index")
    return 0 if images else EXIT_NOTHING


def _report(found: Classified, expected: npt.NDArray[np.int64], labels: Sequence[Label], form: str) -> int:
    from clipsearch.output.confusion import in_words, write_report
    from clipsearch.tasks.classification import report

    measured = report(found.predictions, expected[found.read], labels)
    with writing_output():
        write_report(measured, form, sys.stdout.buffer, screen=screen_width())
    if form in ("tsv", "csv", "safe-csv"):
        say(in_words(measured))
    return 0
