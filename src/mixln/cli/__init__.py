"""The command line: one small file a command. A mistake of the user's is one line on standard error and exit code 2."""

from __future__ import annotations

import io
import os
import shutil
import sys
from contextlib import redirect_stderr, suppress
from typing import Annotated, Any

import tyro

from mixln.cli.compare import Compare, command_of
from mixln.cli.convert import Convert
from mixln.cli.data import Data
from mixln.cli.diagnose import Diagnose
from mixln.cli.evaluate import Evaluate
from mixln.cli.families import Families
from mixln.cli.given import check_filled, check_together, given
from mixln.cli.mistakes import WIDE, one_line
from mixln.cli.placements import Placements
from mixln.cli.plan import PlanCommand
from mixln.cli.pretrain import Pretrain, trained
from mixln.cli.prune import Prune
from mixln.cli.reproduce import Reproduce
from mixln.cli.stress import StressCommand
from mixln.cli.terminal import plain
from mixln.cli.tune import TuneCommand
from mixln.cli.tuning import FineTune, Reward, Rlhf
from mixln.errors import MixlnError, SettingsError, Stopped
from mixln.launch import launched

LONGEST = 1000
"""Characters of a complaint."""
NARROWEST = 40
"""Columns in which help and tables are drawn at least."""
Others = (
    Annotated[Data, tyro.conf.subcommand("data", prefix_name=False)]
    | Annotated[PlanCommand, tyro.conf.subcommand("plan", prefix_name=False)]
    | Annotated[Diagnose, tyro.conf.subcommand("diagnose", prefix_name=False)]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate", prefix_name=False)]
    | Annotated[FineTune, tyro.conf.subcommand("finetune", prefix_name=False)]
    | Annotated[Reward, tyro.conf.subcommand("reward", prefix_name=False)]
    | Annotated[Rlhf, tyro.conf.subcommand("rlhf", prefix_name=False)]
    | Annotated[Prune, tyro.conf.subcommand("prune", prefix_name=False)]
    | Annotated[Convert, tyro.conf.subcommand("convert", prefix_name=False)]
    | Annotated[StressCommand, tyro.conf.subcommand("stress", prefix_name=False)]
    | Annotated[TuneCommand, tyro.conf.subcommand("tune", prefix_name=False)]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce", prefix_name=False)]
    | Annotated[Families, tyro.conf.subcommand("families", prefix_name=False)]
    | Annotated[Placements, tyro.conf.subcommand("placements", prefix_name=False)]
)


def main(arguments: list[str] | None = None) -> int:
    """Runs `mixln` and returns its exit code: 0, 2 for a mistake of the user's, 130 for Ctrl-C.

    :param arguments: what follows the command's name; `sys.argv` if left out.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a code page may lack the arrows of a formula
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(f"mixln {version('mixln')}")
        return 0
    command = None
    _settle_environment()
    try:
        launched()
        command = _parse(arguments or ["--help"])
        if launched()[1] > 1 and not getattr(command, "TOGETHER", False):
            raise SettingsError(
                f"torchrun started {launched()[1]} processes, and only mixln pretrain and reproduce train one model on several devices; "
                "start the others without it: mixln compare takes a GPU for each trial by itself"
            )
        return command.run()
    except MixlnError as error:
        _complain(str(error))
        return 2
    except Stopped as error:
        _complain(f"{', '.join(error.args[1:]) or 'saved and stopped'}; {getattr(command, 'INTERRUPTED', '')}")
        return 128 + error.args[0]
    except KeyboardInterrupt:
        _complain(f"interrupted; {getattr(command, 'INTERRUPTED', 'nothing was written')}")
        return 130
    except BrokenPipeError:  # as of `mixln … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes at its end
        return 141
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _complain(f"{error.strerror or error}{where and f':{where}'}; nothing finished is lost")
        return 2


def _settle_environment() -> None:
    """Makes harmless what variables say to libraries about the terminal and about windows, of which mixln opens none.

    In a width of a few columns, or of none, tyro and rich do not end.
    """
    columns = os.environ.get("COLUMNS", "")
    if not (columns.isascii() and columns.isdigit() and len(columns) < 10):
        os.environ.pop("COLUMNS", None)
    width = shutil.get_terminal_size().columns
    if not NARROWEST <= width <= WIDE:
        os.environ["COLUMNS"] = str(min(max(width, NARROWEST), WIDE))
    os.environ["MPLBACKEND"] = "agg"


def _complain(text: str) -> None:
    """Prints one line, whatever there was in a name: no line break, nothing that a terminal obeys, no page of it.

    Of several processes that make one mistake, one says it.
    """
    with suppress(SettingsError):
        if launched()[0] > 0:
            return
    text = plain(text)
    short = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    print(f"mixln: {short}", file=sys.stderr)


def _parse(arguments: list[str]) -> Any:
    """Parses a command line; a mistake in it is one line."""
    check_filled(arguments)
    try:
        with redirect_stderr(io.StringIO()):
            command = _parsed(arguments)
        check_together(given(arguments), command)
        return command
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
    wide, columns = io.StringIO(), os.environ.pop("COLUMNS", None)
    os.environ["COLUMNS"] = str(WIDE)
    with redirect_stderr(wide), suppress(SystemExit):
        _parsed(arguments)
    del os.environ["COLUMNS"]
    if columns is not None:
        os.environ["COLUMNS"] = columns
    _complain(one_line(wide.getvalue(), arguments))
    raise SystemExit(2)


def _parsed(arguments: list[str]) -> Any:
    name = next(iter(arguments), "")
    kind, stored = command_of(arguments) if name == "compare" else (Compare, tyro.MISSING_NONPROP)
    compare = Annotated[kind, tyro.conf.subcommand("compare", prefix_name=False, default=stored)]  # type: ignore[misc]
    stored = trained(arguments) if name == "pretrain" else tyro.MISSING_NONPROP
    pretrain = Annotated[Pretrain, tyro.conf.subcommand("pretrain", prefix_name=False, default=stored)]  # type: ignore[misc]
    return tyro.cli(
        compare | pretrain | Others,  # type: ignore[arg-type]
        prog="mixln",
        args=arguments,
        description="Put any normalization placement into a Hugging Face transformer, compare placements on equal terms, "
        "and measure what each layer contributes.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
