"""What to type on the command line about an error or a warning. The core names no option and no command."""

from __future__ import annotations

import os
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
    "cpu": "Try --device cpu.",
}
"""What follows a message, by the key that the error or the warning carries. In braces: facts, quoted for a shell."""


def with_hints(error: ClipsearchError) -> str:
    """What is wrong, and what to type."""
    return " ".join([str(error), *in_words(error.hints, error.facts)])


def in_words(keys: Iterable[str], facts: Mapping[str, object]) -> list[str]:
    """What to type for each of `keys`."""
    quoted = {name: shlex.quote(_text(value)) for name, value in facts.items()}
    return [HINTS[key].format_map(quoted) for key in keys]


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)
