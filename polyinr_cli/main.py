"""The `polyinr` command: all commands gathered, verbosity, and every error as one line and an exit code."""

import logging
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from polyinr_core.errors import PolyinrError, RanksError

from . import streams
from .convert import convert
from .demo import demo
from .directions import directions
from .evaluate import evaluate
from .extrapolate import extrapolate
from .heatmap import heatmap
from .info import info
from .interpolate import interpolate
from .invert import invert
from .mix import mix
from .options import Verbose
from .prepare import prepare
from .ranks import own_rank
from .sample import sample
from .train import train

INTERRUPTED = 130


class Interrupted(PolyinrError):
    """A person pressed Ctrl-C."""

    exit_code = INTERRUPTED


class ClosedPipe(PolyinrError):
    """Who read our output has gone."""


class Commands(TyperGroup):
    """A group that keeps Typer from ending the process itself at an interruption or a closed pipe."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted") from error
        except BrokenPipeError as error:
            raise ClosedPipe from error


class Command(TyperCommand):
    """A command that refuses an option given twice, of which the first would be dropped in silence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in given:
            if given.count(parameter) > 1 and not parameter.multiple:
                ctx.fail(f"Option {'/'.join(parameter.opts)} is given twice")
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="polyinr",
    cls=Commands,
    help="Draw pictures as polynomials of their coordinates: prepare a data set, train, draw at any size.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: half the time, and fit for pipes and for docs
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        streams.line(f"polyinr {version('polyinr')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Draw pictures as polynomials of their coordinates: prepare a data set, train, draw at any size."""
    if not verbose:
        logging.getLogger().setLevel(logging.WARNING)


for _command in (
    prepare,
    train,
    sample,
    extrapolate,
    interpolate,
    mix,
    directions,
    invert,
    heatmap,
    evaluate,
    convert,
    info,
    demo,
):
    app.command(cls=Command)(_command)


def run() -> NoReturn:
    """Run the command that was typed; the console script `polyinr` starts here."""
    logging.basicConfig(format="polyinr: %(message)s", stream=sys.stderr, level=logging.WARNING)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal cannot show
    sys.exit(outcome(sys.argv[1:]))


def outcome(arguments: list[str]) -> int:
    """Run one command line and return its exit code; a failure is one line on stderr, never a traceback."""
    logging.captureWarnings(True)
    for chatty in ("py.warnings", "tifffile", "PIL"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)  # what matters of it, our own errors say
    try:
        code = typer.main.get_command(app).main(
            args=arguments or ["--help"], prog_name="polyinr", standalone_mode=False
        )
        if sys.stdout is not None:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    """Print the one line that says what went wrong, and return the exit code."""
    if isinstance(error, ClosedPipe | BrokenPipeError):
        streams.abandon_stdout()
        return 1
    if isinstance(error, OSError):
        streams.abandon_stdout()  # what is left in its buffer must not fail once more at exit
    if logging.getLogger().isEnabledFor(logging.INFO) and not isinstance(error, KeyboardInterrupt):
        streams.say("".join(traceback.format_exception(error)), always=True)
    message, code = _line_of(error)
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    if rank := own_rank():
        if isinstance(error, RanksError | KeyboardInterrupt | Interrupted):
            return code  # the first process says it, or the one that was the reason
        line = f"rank {rank}: {line}"
    streams.say(f"polyinr: {line}", always=True)
    return code


def _line_of(error: BaseException) -> tuple[str, int]:
    """Return what to say about an error, and the exit code."""
    if isinstance(error, PolyinrError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # a usage error of Click, which Typer carries inside or beside itself
        return _usage_line(error), 2
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", INTERRUPTED
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return "not enough memory; ask for a smaller size or batch", 1
    if isinstance(error, OSError):
        from polyinr_core.files import explain

        return str(explain(Path(error.filename or "stdout"), error)), 1
    hint = "this should not happen; -v shows the traceback"
    return f"{type(error).__name__}: {error} ({hint})", 1


def _usage_line(error: Any) -> str:
    message = str(error.format_message()).strip() or "no command given"
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "polyinr"
    return f"{message.rstrip('.')} (see {path} --help)"


def _is_torch_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


if __name__ == "__main__":
    run()
