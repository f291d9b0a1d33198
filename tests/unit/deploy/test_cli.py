"""The command line's frame: it is quick, and its list of commands is true."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

from swarm_deploy.cli import COMMANDS, module_of


def swarm(*words: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from swarm_deploy.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_function_and_the_line_of_help_it_is_listed_with(name: str) -> None:
    function = getattr(importlib.import_module(f"swarm_deploy.commands.{module_of(name)}"), module_of(name))
    assert (inspect.getdoc(function) or "").splitlines()[0] == COMMANDS[name]


def test_without_words_it_lists_the_commands_and_fails() -> None:
    done = swarm()
    assert done.returncode == 2
    assert all(name in done.stdout + done.stderr for name in COMMANDS)


def test_an_unknown_command_is_an_error_that_names_it() -> None:
    done = swarm("fly")
    assert done.returncode == 2
    assert "fly" in done.stderr


def test_the_list_of_commands_costs_no_heavy_import() -> None:
    program = (
        "import sys\nsys.argv = ['swarm', '--help']\nfrom swarm_deploy.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('loaded:', *sorted({'numpy', 'numba', 'zmq', 'kubernetes', 'aiohttp', 'kopf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
