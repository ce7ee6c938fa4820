"""The `polyinr` command: the list of commands, verbosity, and every error as one line and an exit code."""

import atexit
import importlib
import logging
import os
import sys
import traceback
from contextlib import suppress
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from polyinr_core.errors import DistributedError, PolyinrError
from polyinr_core.runtime.atomic_io import explain, remove_drafts

from . import console as streams
from .options import Verbose
from .runtime import die_of_signals, interrupt_on_signals, interruption, is_one_of_several, rank_or_first

COMMANDS = {  # in the order of the help; each is the function and the module of its name
    "prepare": "Prepare a dataset of square images for training.",
    "train": "Train a model, stage by stage.",
    "sample": "Render images at any size and in any window.",
    "extrapolate": "Render beyond the square that the model was trained on.",
    "interpolate": "Interpolate from image to image.",
    "mix": "Mix levels of images into other images.",
    "directions": "Find principal directions and move images along them.",
    "invert": "Invert photos into the latent space.",
    "encoder": "Train an encoder from which inversions start.",
    "heatmap": "Visualize the activations of each level.",
    "view": "Open an interactive deep-zoom viewer.",
    "evaluate": "Evaluate generated images against real ones.",
    "compare": "Explain why two evaluation results differ.",
    "table": "Tabulate evaluation results.",
    "gallery": "Build an HTML gallery of a model.",
    "report": "Summarize a training run on one HTML page.",
    "convert": "Convert a released checkpoint into a polyinr model.",
    "export": "Export a model as ONNX or by torch.export.",
    "push": "Upload a model to the Hugging Face hub.",
    "weights": "List and download pretrained weights.",
    "info": "Describe a file.",
    "demo": "Run the whole workflow on bundled images.",
}
SETTINGS: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,  # plain help is twice as fast, and fit for pipes and docs
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 120},
}
ALIASES = {"--trunc": "--psi", "--class": "--label"}  # StyleGAN's names, taken where the command has no such option
OTHER_NAMES = {  # what other programs of this field call an option
    "--truncation": ("--psi",),
    "--outdir": ("--output", "--run-dir"),
    "--out": ("--output", "--run-dir"),
    "--network": ("--model",),
    "--checkpoint": ("--model", "--init-from"),
    "--seed": ("--seeds",),
    "--resolution": ("--res",),
    "--force": ("--overwrite",),
    "--gpus": ("--device",),
    "--data": ("--real",),
}
INTERRUPTED = 130  # exit code of Ctrl-C; other signals have their own


class CommandInterrupted(PolyinrError):
    """The command was interrupted by Ctrl-C or another signal."""

    exit_code = INTERRUPTED


class ClosedPipe(PolyinrError):
    """The reader of stdout has closed the pipe."""


class Command(TyperCommand):
    """A command that takes aliases, shows its options in groups, and refuses one given twice.

    Click would ignore the first one.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = self.without_aliases(args)
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in given:
            if given.count(parameter) > 1 and not parameter.multiple:
                ctx.fail(f"Option {'/'.join(parameter.opts)} is given twice")
        return super().parse_args(ctx, args)

    def without_aliases(self, args: list[str]) -> list[str]:
        """Return the words with the names of this command in place of those of ALIASES."""
        known = {name for parameter in self.params for name in parameter.opts}
        words = []
        for word in args:
            name, equals, value = word.partition("=")
            own = ALIASES.get(name, name) if name not in known else name
            words.append(own + equals + value if own in known else word)
        return words

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line: [OPTIONS] SOURCE... [DATA]"""
        pieces = ["[OPTIONS]"]
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                name = argument_name(parameter)
                name += "..." if parameter.nargs == -1 and " " not in name else ""
                pieces.append(name if parameter.required else f"[{name}]")
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                is_argument = parameter.param_type_name == "argument"
                panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
                name = argument_name(parameter) if is_argument else record[0]
                panels.setdefault(panel, []).append((name, record[1]))
        for panel, records in panels.items():
            if records:
                with formatter.section(panel):
                    formatter.write_dl(records)


def argument_name(parameter: Any) -> str:
    """Return the name of an argument without brackets, dots and the type that Typer appends, as in SOURCE <path>."""
    return parameter.metavar.strip("[]").removesuffix("...")


class Commands(TyperGroup):
    """The commands by name, each imported when it is called, to start fast.

    Also keeps Typer from exiting by itself at an interruption or a closed pipe.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in COMMANDS:
            return args[0], load(args[0]), args[1:]
        near = get_close_matches(args[0], COMMANDS, n=1)
        return ctx.fail(f"No such command {args[0]!r}" + (f". Did you mean {near[0]!r}?" if near else ""))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise CommandInterrupted("interrupted") from error
        except BrokenPipeError as error:
            raise ClosedPipe from error


def load(name: str) -> Any:
    """Import a command: the function of its name in the module of its name."""
    alone = typer.Typer(add_completion=False, **SETTINGS)
    alone.command(name, cls=Command)(getattr(importlib.import_module(f".commands.{name}", __package__), name))
    return typer.main.get_command(alone)


app = typer.Typer(
    name="polyinr",
    cls=Commands,
    help="Generate images as polynomials of the pixel coordinates: prepare a dataset, train, render.",
    **SETTINGS,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        streams.line(f"polyinr {version('polyinr')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Generate images as polynomials of the pixel coordinates: prepare a dataset, train, render."""
    if not verbose:
        logging.getLogger().setLevel(logging.WARNING)


def run() -> NoReturn:
    """Run the command line; the entry point of the console script `polyinr`."""
    interrupt_on_signals()
    try:
        logging.basicConfig(format="polyinr: %(message)s", stream=sys.stderr, level=logging.WARNING)
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal cannot show
        code = outcome(sys.argv[1:])
    except KeyboardInterrupt as error:  # just before the command, or while its error was reported
        code = _report(error)
    die_of_signals()
    # a regular exit would turn an interruption that passed through `exec` into 130; and where another process of the
    # job has gone, Gloo's threads may abort it
    if interruption.is_raised or (code and is_one_of_several()):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def outcome(arguments: list[str]) -> int:
    """Run one command line and return its exit code; a failure is one line on stderr, never a traceback."""
    interruption.reset()
    logging.captureWarnings(True)
    for chatty in ("py.warnings", "tifffile", "PIL"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)  # our own errors report what matters
    try:
        code = typer.main.get_command(app).main(
            args=arguments or ["--help"], prog_name="polyinr", standalone_mode=False
        )
        if code == INTERRUPTED and interruption.is_raised:  # before `Commands.invoke`; Typer makes it an exit
            raise KeyboardInterrupt
        if sys.stdout is not None:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    """Print the error as one line and return the exit code."""
    if isinstance(error, ClosedPipe | BrokenPipeError):
        streams.abandon_stdout()
        return 1
    if isinstance(error, OSError):
        streams.abandon_stdout()  # or its buffer would raise the error again at exit
    message, code = _line_of(error)
    if code == INTERRUPTED:
        code = interruption.exit_code
        remove_drafts()
        if is_one_of_several():
            message += "; a traceback of SignalException below is torchrun's way to say the same"
    elif logging.getLogger().isEnabledFor(logging.INFO):
        streams.say("".join(traceback.format_exception(error)), always=True)
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    if rank := rank_or_first():
        if isinstance(error, DistributedError | KeyboardInterrupt | CommandInterrupted):
            return code  # rank 0 reports it, or the rank that caused it
        line = f"rank {rank}: {line}"
    streams.say(f"polyinr: {line}", always=True)
    return code


def _line_of(error: BaseException) -> tuple[str, int]:
    """Return an error's message and exit code."""
    if isinstance(error, PolyinrError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # a usage error of Click, which Typer carries inside or beside itself
        return _usage_line(error), 2
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", INTERRUPTED
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return "out of memory; use a smaller size or batch", 1
    if isinstance(error, OSError):
        return str(explain(Path(error.filename or "stdout"), error)), 1
    if interruption.is_raised:  # through a library that made another error of it
        return "interrupted", INTERRUPTED
    hint = "internal error; rerun with -v for the traceback, and please report it"
    return f"{type(error).__name__}: {error} ({hint})", 1


def _usage_line(error: Any) -> str:
    message = str(error.format_message()).strip().replace("Value error, ", "") or "no command given"
    context = getattr(error, "ctx", None)
    if others := OTHER_NAMES.get(getattr(error, "option_name", "")):
        known = {name for parameter in context.command.params for name in parameter.opts} if context else set()
        if fitting := [name for name in others if name in known]:
            message = f"No such option: {error.option_name}. Did you mean {fitting[0]}?"
    path = context.command_path if context is not None else "polyinr"
    return f"{message.rstrip('.')} (see {path} --help)"


def _is_torch_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
