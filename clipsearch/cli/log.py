"""Where the package's log ends in the command line: on stderr, a message as it stands.

Imported when a command begins to run, not for help: logging takes some milliseconds to import.
"""

from __future__ import annotations

import logging

from clipsearch.cli.talk import say


def show_log(*, verbose: bool = False, quiet: bool = False) -> None:
    """Say what the package logs: warnings; with `verbose` also what is used and why, with `quiet` only errors."""
    log = logging.getLogger("clipsearch")
    log.setLevel(logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING)
    log.handlers = [_Said()]
    log.propagate = False


class _Said(logging.Handler):
    """Says each message, and what to type where the record has a hint, as errors have.

    What goes wrong on the way is an error of the command, as for all it says.
    """

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if hint := getattr(record, "hint", None):
            from clipsearch.output.hints import in_words

            message = " ".join([message, *in_words([hint], getattr(record, "facts", {}))])
        say(message)
