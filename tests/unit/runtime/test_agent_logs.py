"""Log lines as a collector would read them. Each test configures a process of its own: logging is global."""

import json
import subprocess
import sys
from typing import Any


def lines(program: str) -> list[dict[str, Any]]:
    prelude = "from swarm_agents.runtime import logs\nimport logging, warnings\n"
    done = subprocess.run([sys.executable, "-c", prelude + program], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_line_has_time_level_event_and_what_is_bound_in_this_order() -> None:
    (line,) = lines(
        "logs.configure(swarm='risk', agent='a-0', epoch=3)\nlogs.get_logger().info('hello', n=1, task='ab')"
    )
    assert list(line) == ["time", "level", "event", "swarm", "agent", "epoch", "task", "n"]
    assert (line["level"], line["event"], line["epoch"]) == ("info", "hello", 3)
    assert line["time"].endswith("Z")


def test_an_exception_is_one_field_with_its_traceback() -> None:
    (line,) = lines(
        "logs.configure()\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    logs.get_logger().exception('failed')"
    )
    assert line["level"] == "error"
    assert "ZeroDivisionError" in line["traceback"]
    assert "Traceback (most recent call last)" in line["traceback"]


def test_the_level_can_be_changed_under_loggers_that_exist() -> None:
    found = lines(
        "logs.configure('warning')\nlog = logs.get_logger().bind(a=1)\nlog.info('no')\n"
        "logs.set_level('debug')\nlog.debug('yes')"
    )
    assert [line["event"] for line in found] == ["yes"]


def test_libraries_and_warnings_speak_json_too() -> None:
    found = lines(
        "logs.configure()\nlogging.getLogger('uvicorn.error').error('port %d', 1)\nwarnings.warn('old', stacklevel=1)"
    )
    assert [line["level"] for line in found] == ["error", "warning"]
    assert found[0]["event"] == "port 1"
    assert found[0]["logger"] == "uvicorn.error"


def test_what_json_does_not_know_is_written_as_text() -> None:
    (line,) = lines(
        "logs.configure()\nlogs.get_logger().info('x', path=__import__('pathlib').Path('/a'), e=ValueError('b'))"
    )
    assert line["path"] == "/a"
    assert line["e"] == "b"


def test_nobody_reading_the_log_does_not_stop_the_program() -> None:
    program = (
        "import os\nfrom swarm_agents.runtime import logs\nlogs.configure()\nr, w = os.pipe()\nos.dup2(w, 1)\n"
        "os.close(w)\n"
        "os.close(r)\nlogs.get_logger().info('into the void')\nos._exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 7
