"""`swarm run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from swarm_agents.errors import BadArguments

__all__ = ["run"]


def run(
    kernel: Annotated[str, typer.Argument(help="Its name; `swarm kernels` lists them.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="Each a JSON value, or @FILE.npy, @FILE.csv or @FILE.json; NAME=VALUE passes it by name."),
    ] = None,
    swarm: Annotated[str | None, typer.Option("--swarm", "-s", help="Which swarm: a name, a URL, a file.")] = None,
    priority: Annotated[str, typer.Option(help="critical, high, normal or bulk.")] = "normal",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the result.")] = 60.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write an array to this .npy file.")] = None,
) -> None:
    """Run one kernel on a swarm and print its result."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for word in arguments or ():
        name, equals, value = word.partition("=")
        if equals and name.isidentifier():
            named[name] = _value(value)
        else:
            positional.append(_value(word))

    from swarm_agents.client import Swarm

    with Swarm.connect(swarm) as connected:
        future = connected.submit(kernel, *positional, priority=priority, timeout=timeout, **named)
        result = future.result(timeout=timeout)
    _show(result, output)


def _value(text: str) -> Any:
    """A JSON value, or the content of a file."""
    if not text.startswith("@"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise BadArguments(f"{text!r} is not JSON ({error}); a string needs quotes inside: '\"text\"'") from None
    path = Path(text[1:])
    try:
        if path.suffix == ".json":
            return json.loads(path.read_bytes())
        import numpy as np

        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix == ".csv":
            return np.genfromtxt(path, delimiter=",", skip_header=_header_lines(path))
    except (OSError, ValueError) as error:
        raise BadArguments(f"{path} can't be read: {error}") from error
    raise BadArguments(f"{path}: expected a .npy, .csv or .json file")


def _header_lines(path: Path) -> int:
    """1 when the first line of a CSV file holds names."""
    with path.open() as file:
        first = file.readline().split(",")
    try:
        [float(cell) for cell in first]
    except ValueError:
        return 1
    return 0


def _show(result: Any, output: Path | None) -> None:
    import numpy as np

    if output is not None:
        np.save(output, np.asarray(result), allow_pickle=False)
        array = np.asarray(result)
        typer.echo(f"{output}: {array.dtype} {array.shape}")
        return
    json.dump(result, sys.stdout, default=_plain)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, complex):
        return [value.real, value.imag]
    return value.tolist()
