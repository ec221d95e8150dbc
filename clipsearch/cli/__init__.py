"""The command line: parse, call the core, hand to output. `main` is the only place that exits."""

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
    "score": ("score", "score"),
    "caption-rank": ("caption_rank", "caption_rank"),
    "classify": ("classify", "classify"),
    "cluster": ("cluster", "cluster"),
    "duplicates": ("duplicates", "duplicates"),
    "embed": ("embed", "embed"),
    "export": ("export", "export"),
    "import": ("import_", "import_"),
    "eval": ("eval_", "eval_"),
    "tokens": ("tokens", "tokens"),
    "models": ("models", "models"),
    "status": ("status", "status"),
    "forget": ("forget", "forget"),
}
"""Module and function of each command, or of its group of commands, in the order of `--help`; groups come last."""


_BY_ITSELF = {"--distinct": "1"}
"""Options whose value may be left out, and what that means. Typer has none of the kind."""
_OF_MATRICES = ("cluster", "duplicates")
"""Commands whose work is large matrix products, which numpy's BLAS shares out to threads."""
_WITHOUT_NUMPY = ("models",)
_MEGABYTE = 1 << 20
_LEAST_MEMORY = 170 * _MEGABYTE
"""Of address space, for numpy and what it computes a query in: 160 were too few."""


def make_app(only: str | None = None) -> typer.Typer:
    """The command line with all commands, or with one: a query should not wait for what the others import."""
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
    """`arguments` with the values that were left out; what follows is a value if it is a number."""
    if "--" in arguments:
        end = arguments.index("--")
        return [*_with_values(arguments[:end]), *arguments[end:]]
    return [
        f"{one}={_BY_ITSELF[one]}" if one in _BY_ITSELF and not _NUMBER.fullmatch(following) else one
        for one, following in zip(arguments, [*arguments[1:], ""], strict=True)
    ]


class Ended(KeyboardInterrupt):
    """A signal asked this process to end. What is under way ends in order, as on Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def main() -> NoReturn:
    """Run the command line and exit: 0 found, 1 nothing found, 2 error, 130 interrupted, 143 told to end."""
    code = run()
    if "torch" in sys.modules:
        # Python takes a second to free all that torch holds, and would wait for a thread that still imports it.
        atexit._run_exitfuncs()  # noqa: SLF001  (there is no public name)
        os._exit(code)
    sys.exit(code)


def run() -> int:
    """Run the command line; the exit code, with all output written."""
    guard_streams()
    try:
        _end_in_order()
        code = _run()
    except KeyboardInterrupt as end:
        number = end.number if isinstance(end, Ended) else signal.SIGINT
        say("Interrupted." if number == signal.SIGINT else f"Ended by {signal.Signals(number).name}.")
        code = 128 + number
        # Under `python -m`, CPython 3.11 kills itself by SIGINT at the end, whatever the exit code, if Ctrl-C once went
        # through code that was compiled from a string, as dataclasses of libraries are. The next such code undoes that.
        exec("")  # noqa: S102  (of nothing)
    return _flushed(code)


def _flushed(code: int) -> int:
    """The exit code `code`, once all output is written; an error if it cannot be."""
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
    """Let SIGTERM, and SIGHUP of a terminal that closes, end a run as Ctrl-C does: with a last checkpoint."""

    def end(number: int, _: FrameType | None) -> None:
        raise Ended(number)

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, end)


def _run() -> int:
    """The exit code of the command that is asked for. Every error becomes a message here."""
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
    except Exception as error:  # noqa: BLE001  (nothing is hidden; but a bug must not end with 1, "nothing found")
        if hasattr(error, "format_message"):
            # Typer's usage errors; their class lives in click, of which Typer may carry a copy of its own.
            command_path = getattr(getattr(error, "ctx", None), "command_path", "clipsearch")
            _complain(f"{error.format_message().rstrip('.')}. To see what it takes: {command_path} --help")
        elif message := of_the_environment(error):
            _complain(message)
        else:
            traceback.print_exc()
    return EXIT_ERROR


def _invoke() -> int:
    """Parse the command line and call the command; its exit code."""
    import typer  # not above: where memory is short, even this may fail

    asked = sys.argv[1] if sys.argv[1:] and sys.argv[1] in _COMMANDS and _COMPLETION not in os.environ else None
    if asked not in _OF_MATRICES:
        # Elsewhere one text is too little work for threads, and starting them, or waiting for one whose core is busy
        # with something else, takes longer than it saves. Ranking, and many texts, have threads of their own. BLAS
        # looks once, when numpy is imported; so this comes before anything that may do so.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if asked and asked not in _WITHOUT_NUMPY and not _HELP.intersection(sys.argv):
        check_memory(_LEAST_MEMORY)
    if asked in _OF_MATRICES:
        check_threads(available())
    command = typer.main.get_command(make_app(asked))
    try:
        if _COMPLETION in os.environ:
            command.main(prog_name="clipsearch", complete_var=_COMPLETION)
        # Not `command.main`: it would answer a closed pipe with exit code 1.
        with command.make_context("clipsearch", _with_values(sys.argv[1:])) as context:
            result = command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    return result if isinstance(result, int) else 0


def _said(error: ClipsearchError) -> str:
    """What is wrong, and what to type."""
    if not error.hints:  # memory may be too short for another import
        return str(error)
    from clipsearch.output.hints import with_hints

    return with_hints(error)


def _complain(message: str) -> None:
    """In one line, whatever it quotes; with `CLIPSEARCH_DEBUG=1` also where it comes from."""
    if os.environ.get(_DEBUG, "0") not in ("", "0"):
        traceback.print_exc()
    say(f"clipsearch: {' '.join(message.split())}")
