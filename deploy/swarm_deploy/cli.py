"""The `swarm` command, which kubectl also finds as `kubectl swarm`.

Each subcommand is a module of `swarm_deploy.commands` with one annotated function of the same name. It is imported
only when it is run: `swarm --help` and `swarm down` must not pay for Numba. That is why the list below carries each
command's line of help, and a test holds it against the modules' docstrings.

Errors that the product raises on purpose end as one line on stderr and exit code 1; anything else is a defect and keeps
its traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer

from swarm_deploy import __version__

__all__ = ["COMMANDS", "main", "module_of"]

#: Command -> its line of help, in the order of `swarm --help`.
COMMANDS = {
    "up": "Start a local cluster in the background, with the operator.",
    "down": "Stop the local cluster; its objects are kept.",
    "status": "Say what the local cluster runs.",
    "demo": "Compute a portfolio's risk on a local swarm, and kill an agent meanwhile.",
    "chaos": "Do faults to a swarm while clients check every answer: nothing may be lost, and nothing doubled.",
    "plan": "Print what the operator would do for a manifest, offline.",
    "run": "Run one kernel on a swarm and print its result.",
    "top": "Watch a swarm live.",
    "agents": "List a swarm's agents.",
    "sensors": "Show what each node's sensors say: which are available, their values, and why one is not.",
    "events": "List what happened to a swarm: deaths, takeovers, restarts, and what the operator did.",
    "aside": "List the tasks that were given up, and who died over them.",
    "audit": "Show who changed a swarm, when, and from what to what; --verify checks that the trail is whole.",
    "kernels": "List the kernels, what they take and what they do.",
    "cache": "Show, warm or clear the cache of compiled kernels.",
    "connection": "Write a file by which a program without a kubeconfig connects to a swarm.",
    "rotate-keys": "Ask for new CURVE keys; old and new are both taken for security.keyOverlap.",
}


def module_of(command: str) -> str:
    """The module of a command, and the function in it."""
    return command.replace("-", "_")


def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    """Agent Swarm: numeric work answered now, on Kubernetes or on this machine alone."""
    if version:
        typer.echo(f"swarm {__version__}")
        raise typer.Exit


def _not_asked_for() -> None:
    """Stands in the list for a command that this run does not need."""


def _app(asked: str | None) -> typer.Typer:
    """The whole command line, with only the module of the command that is asked for imported."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(_root)
    for name, line in COMMANDS.items():
        if name == asked:
            module = importlib.import_module(f"swarm_deploy.commands.{module_of(name)}")
            app.command(name)(getattr(module, module_of(name)))
        else:
            app.command(name, help=line)(_not_asked_for)
    return app


def main() -> Any:
    """The entry point of `swarm` and `kubectl-swarm`."""
    from swarm_agents.errors import SwarmError

    try:
        asked = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
        return _app(asked)(prog_name="kubectl swarm" if sys.argv[0].endswith("kubectl-swarm") else "swarm")
    except SwarmError as error:
        print(f"swarm: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has gone (`swarm agents | head`): nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
