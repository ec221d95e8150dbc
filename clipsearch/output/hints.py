"""Advice on what to type on the command line about an error or a warning; the core names no option and no command."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping

from clipsearch.errors import ClipsearchError

HINTS = {
    # Models
    "pull": "Fetch it: clipsearch models pull {model}",
    "pull-again": "Fetch them again: clipsearch models pull {model}",
    "pull-rest": "To fetch what is still missing: clipsearch models pull {model}",
    "pull-permitted": "Then run: clipsearch models pull {model}",
    "no-network": (
        "Three ways out: 1. Connect to the network and run: clipsearch models pull {model} "
        "2. Copy the folder of {repository} from another machine and name it: --model PATH "
        "3. Try clipsearch without any download, on the sample pictures: "
        "clipsearch index sample-images --model picturebook"
    ),
    "pictures": "(--pictures DIR)",
    "list-models": "See what works: clipsearch models",
    "known-models": "See which are well known: clipsearch models",
    "no-settings": "Rename it, or name a model yourself: --model NAME",
    "one-model": "Index the folders apart (--index DIR), or choose one with --model.",
    "check-model": "To see what differs: clipsearch models check {model}",
    "cpu": "Try --device cpu.",
    "precision": "Try --precision fp32.",
    "engine": "Leave --engine out.",
    "processor": "Leave --device and --precision out.",
    "exact": "Leave --exact or --precision out.",
    # Serving
    "port": "Take any free one: --port 0",
    # Queries
    "query": 'Say what to look for: clipsearch query "a dog is sleeping"',
    "image": "Say which: --image FILE",
    "min-score": "Cut off by score instead (--min-score).",
    # Archives
    "open-page": "Open a page with it: --html FILE --open",
    "copy-instead": "Copy the pictures instead: --copy-to DIR",
    "copy-into": "Copy the pictures instead: --copy-into DIR",
    # Stores and web servers
    "remote": "Install them: pip install 'clipsearch[remote]'",
    "no-scheme": "For a file or folder of this name, begin with ./",
    "s3-keys": (
        "Credentials are those of the AWS tools: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or "
        "~/.aws/credentials. For a public bucket without any: FSSPEC_S3_ANON=true"
    ),
    "gs-keys": (
        "Make HMAC keys for the bucket (gcloud storage hmac create) and set FSSPEC_GS_KEY and FSSPEC_GS_SECRET. For a "
        "public bucket without any: FSSPEC_GS_ANON=true"
    ),
    "no-password": "Leave them out. A server that asks for a password is not read; fetch its files, and index them.",
    "no-query": "Leave it out. If the server needs it, fetch the files (curl, wget), and index them.",
    "bucket": "Look at its name: aws s3 ls. If it lies with another provider, name that: AWS_ENDPOINT_URL=https://HOST",
    "list": "A list is a text file (.txt) with an address in each line; any other address is that of one picture.",
    # The index
    "begin-again": "Go on with it: clipsearch index PATH (or delete {folder})",
    "refresh": "To bring the index up to date: clipsearch index",
    "go-on": "Go on with it: clipsearch index",
    "watch-folders": "To search there every five minutes: --poll 300",
    "install-watch": "Install it: pip install 'clipsearch[watch]'; or search them every minute: --poll 60",
    "poll": "To search them every minute instead: --poll 60",
    "index-anew": "Make it anew: clipsearch index PATH",
    "make-index": "Make one with: clipsearch index {folder}",
    "name-index": "If it lies elsewhere, name it with --index DIR or CLIPSEARCH_INDEX.",
    "embed-again": "Have these images embedded again: clipsearch index --reread --index {folder}",
    "regions-again": (
        "Have the regions embedded again: clipsearch index --no-regions --index {folder}, then the same with --regions"
    ),
    "no-regions": "Leave --regions out.",
    "whole": "Add --whole, or leave --approximate out.",
    "make-codes": "Make them: clipsearch index --codes --index {folder}. Or leave --approximate out.",
    "codes-again": "Make them again: clipsearch index --no-codes --index {folder}, then the same with --codes",
    "pull-tower": "The next query makes it anew from the model; or do it now: clipsearch models pull {model}",
    "newer-clipsearch": (
        "Update clipsearch (pip install --upgrade clipsearch), or make a second index with --index DIR."
    ),
    "pull-revision": (
        "Fetch the one that it was made with (clipsearch models pull {model}) and go on with that (--model {model}), "
        "or make a second index with --index DIR."
    ),
    "other-model": "Go on with its model (--model {model}), or make a second index with --index DIR.",
    "other-part": "Make a second index with --index DIR.",
    "merge-first": (
        "Name one, or make one of them: clipsearch merge INDEX... --index DIR. (query and similar take several.)"
    ),
    "leave-index-out": "Leave one out, or search them one after the other.",
    "when-done": "Try again when it has finished.",
    "finish": "Finish it first: clipsearch index --index {folder}",
    "other-out": "Name another folder with --index DIR, or delete it first: {folder}",
    "missing-parts": (
        "Make it first: clipsearch index PATH --part {part} --index DIR. Or merge without it (--partial): a later "
        "clipsearch index embeds its pictures."
    ),
    "any-precision": "Their cosines differ by less than 0.001; to merge them all the same: --any-precision",
    "regions-alike": (
        "Give it regions: clipsearch index --regions --index {folder}, or take them from the others (--no-regions)."
    ),
    "same-path": "Bring both up to date with clipsearch index --index DIR, or leave one out.",
    "moved-root": "If it is the same folder under another name: --root OLD=NEW",
    "rules": "Index it again there with the same options, such as --exclude.",
    "broken-rows": (
        "To see which: clipsearch status --verify; to have them embedded again: "
        "clipsearch index --reread --index {folder}"
    ),
    "damaged-index": (
        "To see all that is wrong: clipsearch status --verify. To make the index anew: delete {folder} and run: "
        "clipsearch index PATH"
    ),
    "other-place": "Then run the same command again; or choose another place with --index DIR.",
    "wait": "Try again when it has finished, or let this one wait: --wait SECONDS.",
    "leave-out": (
        "To leave out a part of one, index it again with --exclude, or put the part's name into a .clipsearchignore "
        "file."
    ),
    "folders": "`clipsearch status` names the folders in the index.",
    "gone": "If they are gone for good: clipsearch forget {folder}",
    "gone-or-empty": "If they are gone for good: --allow-empty, or clipsearch forget {folder}",
    "allow-empty": "If that is as it should be: --allow-empty",
    "include_backups": "To take in backups: --include-backups",
    "include_system": "To take in folders of systems: --include-system",
    "archives": "To read archives in folders as well: --archives",
    "archives-of-folder": (
        "To read all of them: clipsearch index --archives {folder}. To have the archive in an index of its own: "
        "--index DIR"
    ),
    "add-images": "To add more: clipsearch index PATH",
    # A cluster
    "install-ray": "Install it: pip install 'clipsearch[ray]'",
    "install-ray-workers": "Install the same on all of them: pip install 'clipsearch[ray]'",
    "ray-address": (
        "Name the one of its first machine, HOST:6379 by default, or take --ray auto on a machine of the cluster "
        "(`ray status` shows what runs)."
    ),
    "start-ray": "Start one: ray start --head, and on each other machine: ray start --address=HOST:6379",
    "any-gpu": "Leave --device out, or take --device cuda.",
    "no-ray": "Leave --ray out.",
    "no-parts": "Leave --parts out.",
    "same-parts": "Go on with them: --parts {parts}, or delete {folder}",
    "same-paths": "Mount them there and run the same command again: it goes on from here.",
    # Labels and groups
    "label": "What else could it be? --label NAME",
    "add-label": "Add it: --label {label}",
    "fewer-groups": "Ask for fewer: -n {most}",
    "many-images": "Take --method kmeans, or fewer images (--under, --glob).",
    "no-number": "Leave out -n, or take another --method.",
    "no-min-size": "Leave out --min-size, or add --method hdbscan.",
    # Tables and vectors
    "as-csv": "Use --format csv.",
    "encoding": "If the file is in another encoding, name that: --encoding cp949, say, or --encoding latin-1",
    "wrong-encoding": "Is it in another encoding? Name it: --encoding NAME",
    "utf-16": "If it is UTF-16 without a byte order mark, say so: --encoding utf-16-le",
    "no-encoding": "Leave out --encoding.",
    "no-split": "Leave out --split.",
    "no-images": "Leave out --images.",
    "images": "Name their folder with --images DIR.",
    "images-or-skip": "Name their folder with --images DIR, or leave them out with --skip-missing.",
    "leave-line-out": "Leave its line out.",
    "skip-missing": "To leave such pictures out: --skip-missing",
    "install-tune": "Install it: pip install 'clipsearch[tune]'",
    "method-lora": "Leave out --towers and --epochs, or take --method lora.",
    "other-training": (
        "Run the command of that run again to go on with it; or delete {folder}, or name another folder with --out."
    ),
    "begin-training-again": "To begin again, delete {folder}.",
    "other-folder": "Name another folder with --out, or remove it first.",
    "replace": "Choose another name, or replace it with --force.",
    "normalise": "If these are raw outputs of the model, add --normalise.",
    "name-folder": "Name one: clipsearch index PATH",
    "name-model": "Name it: --model NAME",
    "made-with": "Name the model that made them with --model.",
    "roots": "Name the folders that the index should know: --root DIR, once for each.",
    "more-roots": "Name one more: --root DIR",
}
"""Advice by the key that an error or a warning carries. Names in braces are its facts, which are quoted for a shell."""

_OPTIONS = {"damaged: ": "(--skip-damaged)", "too large: .*(limit|allowed)": "(--max-pixels)"}
"""Options of `index` by the beginning of the reason for which a file was not indexed, as a regular expression."""


def with_hints(error: ClipsearchError) -> str:
    """Return the message of an error, followed by its advice."""
    return " ".join([str(error), *in_words(error.hints, error.facts)])


def in_words(keys: Iterable[str], facts: Mapping[str, object]) -> list[str]:
    """Return the advice for each of `keys`, with `facts` quoted for a shell."""
    quoted = {name: shlex.quote(_text(value)) for name, value in facts.items()}
    return [HINTS[key].format_map(quoted) for key in keys]


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)


def with_option(reason: str) -> str:
    """Add the option of `index` that decides on a file to the reason why it was not read.

    Old indexes contain reasons to which the option was added already.
    """
    option = next((option for begin, option in _OPTIONS.items() if re.match(begin, reason)), None)
    return reason if option is None or reason.endswith(option) else f"{reason} {option}"
