"""The Dockerfile and what it promises, as far as it can be told without building; `.ci/images` builds and runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_ROOT = Path(__file__).parents[3]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
_TARGETS = ("operator", "agent", "agent-gpu")
#: What the operator has no use for, and what would double its image.
_HEAVY = ("numba", "llvmlite", "numpy", "scipy", "cupy", "psutil", "pynvml", "starlette", "uvicorn")


@dataclass
class Stage:
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.lines if name == instruction]


def _stages() -> tuple[dict[str, Stage], dict[str, str]]:
    """The stages by name, and the arguments that stand before the first."""
    text = re.sub(r"^\s*#.*\n", "", (_ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    current = None
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            current = stages[stage] = Stage(base)
        elif current is None:
            key, _, value = rest.partition("=")
            arguments[key] = value
        else:
            current.lines.append((name, rest.strip()))
    return stages, arguments


def test_each_target_runs_a_command_of_the_project_as_nobody_in_particular() -> None:
    stages, _ = _stages()
    for target in _TARGETS:
        stage = stages[target]
        assert stage.base == "runtime"
        assert not stage.all("RUN"), "what a final stage runs would need a shell's rights and leave a layer"
        assert not stage.all("USER"), "the one of the stage below counts"
        (entry,) = map(json.loads, stage.all("ENTRYPOINT"))
        assert entry[0] in _PROJECT["scripts"]
        assert f'org.opencontainers.image.title="agentswarm-{target}"' in " ".join(stage.all("LABEL"))
    runtime = stages["runtime"]
    assert runtime.base == "scratch", "what was deleted from the base must not lie in a layer below"
    (user,) = runtime.all("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "a number, so that runAsNonRoot can be verified"
    for label in ("version", "revision", "licenses", "vendor"):
        assert f"org.opencontainers.image.{label}=" in runtime.all("LABEL")[0]


def test_the_last_target_is_the_agent_and_all_agree_with_the_project() -> None:
    stages, arguments = _stages()
    assert list(stages)[-1] == "agent", "what a build without --target makes"
    assert f"VERSION={_PROJECT['version']}" in stages["runtime"].all("ARG")
    assert f'licenses="{_PROJECT["license"]}"' in stages["runtime"].all("LABEL")[0]
    host, slash, _ = arguments["BASE"].partition("/")
    assert not slash or not re.search(r"[.:]", host), "the base is named without a registry's host"
    extras = re.findall(r"agentswarm\[([a-z,]+)\]", (_ROOT / "Dockerfile").read_text())
    assert {name for each in extras for name in each.split(",")} <= set(_PROJECT["optional-dependencies"])


def test_what_is_copied_in_is_not_ignored_and_nothing_else_is_sent() -> None:
    stages, _ = _stages()
    copied = {
        name
        for stage in stages.values()
        for line in stage.all("COPY")
        if not line.startswith("--from")
        for name in line.split()[:-1]
    }
    first, *patterns = [
        line for line in (_ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert first == "*"
    assert {pattern[1:] for pattern in patterns if pattern.startswith("!")} == copied
    assert all((_ROOT / name).exists() for name in copied)


def test_the_operator_needs_nothing_that_computes() -> None:
    """Of what its extra installs, all the way down; and of what it imports when it does its work."""
    found: set[str] = set()
    direct = [*_PROJECT["dependencies"], *_PROJECT["optional-dependencies"]["operator"]]
    waiting = [(need, extra) for need in map(Requirement, direct) for extra in (need.extras or {""})]
    while waiting:
        requirement, extra = waiting.pop()
        name = requirement.name.lower().replace("_", "-")
        if f"{name}[{extra}]" in found:
            continue
        found |= {name, f"{name}[{extra}]"}
        try:
            needs = requires(name) or []
        except PackageNotFoundError:  # for another platform
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(need, each) for each in (need.extras or {""})]
    assert {"kopf", "kubernetes", "aiohttp"} <= found
    assert found.isdisjoint(_HEAVY)

    program = (
        "import sys; from swarm_operator.main import main; status = main(['check', '--offline']); "
        f"print('heavy:', *sorted(set({_HEAVY!r}) & set(sys.modules))); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "heavy:"


@pytest.mark.parametrize("name", ["base", "build", "check"])
def test_the_scripts_can_be_run_and_are_bash(name: str) -> None:
    script = _ROOT / "deploy" / "image" / name
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)
