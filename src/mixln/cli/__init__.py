"""The command line, one module per command. A user error prints one line on standard error and exits with code 2."""

from __future__ import annotations

import io
import os
import shutil
import sys
from contextlib import suppress
from typing import Annotated, Any

import tyro

from mixln.cli.compare import Compare, command_of
from mixln.cli.convert import Convert
from mixln.cli.data import Data
from mixln.cli.diagnose import Diagnose
from mixln.cli.evaluate import Evaluate
from mixln.cli.families import Families
from mixln.cli.given import check_filled, check_together, given
from mixln.cli.mistakes import parse
from mixln.cli.names import check_command
from mixln.cli.placements import Placements
from mixln.cli.plan import PlanCommand
from mixln.cli.post_training import FineTune, Reward, Rlhf
from mixln.cli.pretrain import Pretrain, trained
from mixln.cli.prune import Prune
from mixln.cli.reproduce import Reproduce
from mixln.cli.stress import StressCommand
from mixln.cli.terminal import plain
from mixln.cli.tune import TuneCommand
from mixln.compare.settings import ExperimentSettings
from mixln.errors import MixlnError, SettingsError, Stopped
from mixln.launch import launched

LONGEST = 1000
"""Maximum characters of an error message; the middle of a longer one is omitted."""
NARROWEST, WIDEST = 40, 10_000
"""Minimum and maximum width of help and tables, in columns."""
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
    """Runs `mixln` and returns its exit code: 0, 1 if a trial failed, 2 for a user error, 128 + n for signal n (130 for
    Ctrl-C), 141 for a closed pipe.

    :param arguments: arguments after the program's name; by default those of `sys.argv`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the encoding of the terminal may lack the arrows of a formula
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
                f"torchrun started {launched()[1]} processes, but only mixln pretrain and reproduce train one model on several devices; "
                "start other commands without torchrun: mixln compare assigns one GPU to each trial itself"
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
    except BrokenPipeError:  # the reader has ended, as in `mixln … | head`
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # Python flushes standard output once more at exit
        return 141
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _complain(f"{error.strerror or error}{where and f':{where}'}; nothing finished is lost")
        return 2


def _settle_environment() -> None:
    """Corrects the environment variables COLUMNS and MPLBACKEND, which libraries read."""
    # tyro and rich loop forever at a width of a few columns, or of zero.
    columns = os.environ.get("COLUMNS", "")
    if not (columns.isascii() and columns.isdigit() and len(columns) < 10):
        os.environ.pop("COLUMNS", None)
    width = shutil.get_terminal_size().columns
    if not NARROWEST <= width <= WIDEST:
        os.environ["COLUMNS"] = str(min(max(width, NARROWEST), WIDEST))
    os.environ["MPLBACKEND"] = "agg"  # figures go to files, so no window system is needed


def _complain(text: str) -> None:
    """Prints an error message as one line of at most `LONGEST` characters, with control characters escaped.

    Of several processes, only rank 0 prints.
    """
    with suppress(SettingsError):
        if launched()[0] > 0:
            return
    text = plain(text)
    short = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    print(f"mixln: {short}", file=sys.stderr)


def _parse(arguments: list[str]) -> Any:
    """Parses a command line.

    :raises SettingsError: if it has a mistake.
    """
    check_filled(arguments)
    command = parse(_commands(arguments), arguments)
    options = given(arguments)
    check_together(options, command)
    # What a stored experiment names need not be there any more.
    check_command(command, options if isinstance(command, ExperimentSettings) else None)
    return command


def _commands(arguments: list[str]) -> Any:
    """The commands, as a union for tyro; the defaults of a stored experiment or training are its settings."""
    name = next(iter(arguments), "")
    kind, stored = command_of(arguments) if name == "compare" else (Compare, tyro.MISSING_NONPROP)
    compare = Annotated[kind, tyro.conf.subcommand("compare", prefix_name=False, default=stored)]  # type: ignore[misc]
    stored = trained(arguments) if name == "pretrain" else tyro.MISSING_NONPROP
    pretrain = Annotated[Pretrain, tyro.conf.subcommand("pretrain", prefix_name=False, default=stored)]  # type: ignore[misc]
    return compare | pretrain | Others  # type: ignore[operator]
