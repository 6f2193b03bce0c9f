"""What the command line's modules share: exit codes, options, and errors as messages."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from rlplatform import config as configs
from rlplatform.placement import ClusterError
from rlplatform.rundir import RunDirError
from rlplatform.statefile import StateError

EXIT_FAILED = 1
PLAIN_EVERY_S = 10.0  # between two lines where there is no terminal

AgentName = Annotated[
    str, typer.Argument(help="A preset (`rlplatform list agents`) or `package.module:Class` of your own.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.sub=value of any field (`rlplatform config`).", metavar="[KEY=VALUE]...")
]
Steps = Annotated[int | None, typer.Option(help="Agent steps [default: the suite's budget].")]
OwnAgent = Annotated[
    str | None,
    typer.Option("--agent", help="package.module:Class of an agent of your own; AGENT then only names the run."),
]
Imports = Annotated[
    list[str] | None, typer.Option("--import", help="A module to import first, such as one that calls envs.register.")
]
FewSeeds = Annotated[bool, typer.Option("--few-seeds", help="Give intervals of 2 runs a task, too.")]


def command_line() -> str:
    """What was typed, to be shown with what it made."""
    return shlex.join(["rlplatform", *sys.argv[1:]])


def duration(seconds: float) -> str:
    """As 1:02:03, or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """What a user can mend is said in one line; anything else is a bug and keeps its traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        typer.echo(f"rlplatform: {error} (modules of your own are looked for in the current folder, too)", err=True)
        raise typer.Exit(EXIT_FAILED) from error
    except (
        configs.ConfigError,
        ClusterError,
        RunDirError,
        StateError,
        FileNotFoundError,
        FileExistsError,
        FloatingPointError,
        ValueError,
    ) as error:
        typer.echo(f"rlplatform: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from error
