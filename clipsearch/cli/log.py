"""Shows the log of the package on stderr, each message in a line.

The module is imported when a command begins to run, and not for help, because importing logging takes milliseconds.
"""

from __future__ import annotations

import logging

from clipsearch.cli.talk import say


def show_log(*, verbose: bool = False, quiet: bool = False) -> None:
    """Show warnings of the package; with `verbose` also information, with `quiet` only errors."""
    log = logging.getLogger("clipsearch")
    log.setLevel(logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING)
    log.handlers = [_Stderr()]
    log.propagate = False


class _Stderr(logging.Handler):
    """Shows each message, with its hint if the record has one.

    Unlike in other handlers, an error in writing is raised, so that it ends the command.
    """

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if hint := getattr(record, "hint", None):
            from clipsearch.output.hints import in_words

            message = " ".join([message, *in_words([hint], getattr(record, "facts", {}))])
        say(message)
