"""The command line: parses arguments, calls the core, and passes results to output. Only `main` exits."""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
import traceback
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from clipsearch.cli.talk import say
from clipsearch.errors import ClipsearchError, NothingFoundError, OutputError
from clipsearch.system.cores import available
from clipsearch.system.failures import of_the_environment
from clipsearch.system.limits import check_memory, check_threads
from clipsearch.system.streams import OutputAbandonedError, guard_streams, let_output_go

if TYPE_CHECKING:
    import typer

EXIT_NOTHING_FOUND, EXIT_ERROR = 1, 2
_HELP = {"-h", "--help"}
_COMPLETION = "_CLIPSEARCH_COMPLETE"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")
_DEBUG = "CLIPSEARCH_DEBUG"

_COMMANDS = {
    "index": ("index", "index"),
    "query": ("query", "query"),
    "similar": ("query", "similar"),
    "serve": ("serve", "serve"),
    "mcp": ("mcp", "mcp"),
    "score": ("score", "score"),
    "caption-rank": ("caption_rank", "caption_rank"),
    "classify": ("classify", "classify"),
    "cluster": ("cluster", "cluster"),
    "duplicates": ("duplicates", "duplicates"),
    "embed": ("embed", "embed"),
    "imagine": ("imagine", "imagine"),
    "export": ("export", "export"),
    "import": ("import_", "import_"),
    "merge": ("merge", "merge"),
    "eval": ("eval_", "eval_"),
    "tune": ("tune", "tune"),
    "tokens": ("tokens", "tokens"),
    "models": ("models", "models"),
    "status": ("status", "status"),
    "forget": ("forget", "forget"),
}
"""Module and function of each command or group of commands, in the order of `--help`, where groups come last."""


_BY_ITSELF = {"--distinct": "1"}
"""Options whose value may be omitted, and the value they then have. Typer does not support such options."""
_OF_MATRICES = ("cluster", "duplicates")
"""Commands with large matrix products, which NumPy's BLAS computes in several threads."""
_WITHOUT_NUMPY = ("models",)
"""Commands that do not import NumPy."""
_MEGABYTE = 1 << 20
_LEAST_MEMORY = 170 * _MEGABYTE
"""Bytes of address space that NumPy needs for a query; 160 MB were too few."""


def make_app(only: str | None = None) -> typer.Typer:
    """Make the Typer application with all commands, or with only one, so that a query does not import the others."""
    import typer

    from clipsearch.cli.command import Command
    from clipsearch.cli.options import version_option

    app = typer.Typer(
        name="clipsearch",
        help="Find pictures in folders by what they show.",
        epilog='Start with: clipsearch index ./images, then: clipsearch query "a dog is sleeping" -k 3',
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help starts faster and reads the same everywhere
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(version_option)
    for name, (module, function) in _COMMANDS.items():
        if only in (None, name):
            command = getattr(import_module(f"clipsearch.cli.{module}"), function)
            if isinstance(command, typer.Typer):
                app.add_typer(command, name=name)
            else:
                app.command(name, cls=Command)(command)
    return app


def _with_values(arguments: list[str]) -> list[str]:
    """Add to `arguments` the omitted values of options. The following argument is the value if it is a number."""
    if "--" in arguments:
        end = arguments.index("--")
        return [*_with_values(arguments[:end]), *arguments[end:]]
    return [
        f"{one}={_BY_ITSELF[one]}" if one in _BY_ITSELF and not _NUMBER.fullmatch(following) else one
        for one, following in zip(arguments, [*arguments[1:], ""], strict=True)
    ]


class Ended(KeyboardInterrupt):
    """A signal asked this process to end. Commands handle it as they handle Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def main() -> NoReturn:
    """Run the command line and exit: 0 found, 1 nothing found, 2 error, 130 interrupted, 143 terminated."""
    code = run()
    if "torch" in sys.modules:
        # Python would take a second to free the memory of torch, and wait for a thread that still imports it.
        atexit._run_exitfuncs()  # noqa: SLF001  (there is no public name)
        os._exit(code)
    sys.exit(code)


def run() -> int:
    """Run the command line, write all output, and return the exit code."""
    guard_streams()
    try:
        _end_in_order()
        code = _run()
    except KeyboardInterrupt as end:
        number = end.number if isinstance(end, Ended) else signal.SIGINT
        say("Interrupted." if number == signal.SIGINT else f"Ended by {signal.Signals(number).name}.")
        code = 128 + number
        # Under `python -m`, CPython 3.11 ends itself with SIGINT, whatever the exit code, if Ctrl-C passed through code
        # that was compiled from a string, such as a dataclass. Executing other code from a string resets that.
        exec("")  # noqa: S102  (an empty string)
    return _flushed(code)


def _flushed(code: int) -> int:
    """Write all output, and return `code`, or an error if the output cannot be written."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OutputAbandonedError:
        let_output_go()
    except OutputError as error:
        _complain(str(error))
        let_output_go()
        return code or EXIT_ERROR
    return code


def _end_in_order() -> None:
    """Make SIGTERM, and SIGHUP from a closing terminal, end a run as Ctrl-C does, with a last checkpoint."""

    def end(number: int, _: FrameType | None) -> None:
        raise Ended(number)

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # not if nohup ignores it
            signal.signal(number, end)


def _run() -> int:
    """Run the command, turn every error into a message, and return the exit code."""
    try:
        return _invoke()
    except NothingFoundError as error:
        say(_said(error))
        return EXIT_NOTHING_FOUND
    except ClipsearchError as error:
        _complain(_said(error))
        if isinstance(error, OutputError):
            let_output_go()
    except OutputAbandonedError:
        let_output_go()
        return 0
    except Exception as error:  # noqa: BLE001  (the traceback is printed; a bug must not exit with 1, "nothing found")
        if hasattr(error, "format_message"):
            # A usage error of Typer. Its class is in click, of which Typer may have its own copy.
            command_path = getattr(getattr(error, "ctx", None), "command_path", "clipsearch")
            _complain(f"{error.format_message().rstrip('.')}. To see what it takes: {command_path} --help")
        elif message := of_the_environment(error):
            _complain(message)
        else:
            traceback.print_exc()
    return EXIT_ERROR


def _invoke() -> int:
    """Parse the command line, call the command, and return its exit code."""
    import typer  # within `_run`, because even this may fail if memory is short

    asked = sys.argv[1] if sys.argv[1:] and sys.argv[1] in _COMMANDS and _COMPLETION not in os.environ else None
    if asked not in _OF_MATRICES:
        # A single text is too little work for BLAS's threads: starting them, or waiting for one whose core is busy,
        # takes longer than it saves. Ranking, and many texts, have threads of their own. BLAS reads the variable when
        # NumPy is imported, so it is set before.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if asked and asked not in _WITHOUT_NUMPY and not _HELP.intersection(sys.argv):
        check_memory(_LEAST_MEMORY)
    if asked in _OF_MATRICES:
        check_threads(available())
    command = typer.main.get_command(make_app(asked))
    try:
        if _COMPLETION in os.environ:
            command.main(prog_name="clipsearch", complete_var=_COMPLETION)
        # Not `command.main`, which would end with exit code 1 when a pipe is closed.
        with command.make_context("clipsearch", _with_values(sys.argv[1:])) as context:
            result = command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    return result if isinstance(result, int) else 0


def _said(error: ClipsearchError) -> str:
    """Return the message of an error with its hints."""
    if not error.hints:  # memory may be too short to import the hints
        return str(error)
    from clipsearch.output.hints import with_hints

    return with_hints(error)


def _complain(message: str) -> None:
    """Print an error in one line; with `CLIPSEARCH_DEBUG=1` print the traceback first."""
    if os.environ.get(_DEBUG, "0") not in ("", "0"):
        traceback.print_exc()
    say(f"clipsearch: {' '.join(message.split())}")
