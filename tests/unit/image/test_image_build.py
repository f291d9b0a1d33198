"""`make image`: which engine builds, and what it is told. The engines here write down what they were asked."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_VERSION = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]


class Engines:
    """A PATH on which are the named engines; the ones in `dead` have no daemon."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "log"
        self._log.touch()

    def install(self, *names: str, dead: tuple[str, ...] = ()) -> None:
        for name in names:
            script = self._directory / name
            script.write_text(
                f'#!/bin/sh\nif [ "$1" = info ]; then exit {int(name in dead)}; fi\n'
                f'echo "{name} $*" >>{self._log}\n'
                'case "$*" in *inspect*) echo 123456789 ;; images*) echo "123 MB" ;; esac\n'
            )
            script.chmod(0o755)

    def run(self, **arguments: str) -> subprocess.CompletedProcess[str]:
        # of the system's programs only these, since it may have an engine of its own
        for program in ("bash", "sed", "head", "git", "awk", "dirname", "env", "make", "sh"):
            where = next(p for p in map(Path, ("/usr/bin", "/bin", "/usr/local/bin")) if (p / program).exists())
            link = self._directory / program
            link.exists() or link.symlink_to(where / program)
        command = ["make", "image", *(f"{key}={value}" for key, value in arguments.items())]
        environment = {"PATH": str(self._directory), "HOME": str(self._directory)}
        return subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)

    @property
    def builds(self) -> list[str]:
        return [line for line in self._log.read_text().splitlines() if " build " in line]


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return Engines(tmp_path)


def test_base_and_tag_are_arguments_and_both_images_are_built(engines: Engines) -> None:
    engines.install("docker")
    done = engines.run(BASE="localhost/base:7", TAG="x")
    assert done.returncode == 0, done.stderr
    operator, agent = engines.builds
    for line, target in ((operator, "operator"), (agent, "agent")):
        assert line.startswith("docker build ")
        assert f"--target {target} --tag agentswarm/{target}:x" in line
        assert "--build-arg BASE=localhost/base:7" in line
        assert f"--build-arg VERSION={_VERSION}" in line
    assert "agentswarm/agent:x has 123 MB" in done.stdout


def test_without_arguments_the_version_is_the_tag_and_the_base_has_no_host(engines: Engines) -> None:
    engines.install("podman")
    assert engines.run(IMAGES="agent-gpu").returncode == 0
    (line,) = engines.builds
    assert f"--target agent-gpu --tag localhost/agentswarm/agent-gpu:{_VERSION}" in line
    assert "--build-arg BASE=python:" in line


@pytest.mark.parametrize(
    ("there", "dead", "chosen"),
    [
        (("docker", "podman", "buildah"), (), "docker build"),
        (("docker", "podman", "buildah"), ("docker",), "podman build"),
        (("docker", "buildah"), ("docker",), "buildah build"),
    ],
)
def test_an_engine_is_taken_that_works(
    engines: Engines, there: tuple[str, ...], dead: tuple[str, ...], chosen: str
) -> None:
    engines.install(*there, dead=dead)
    assert engines.run(IMAGES="operator").returncode == 0
    (line,) = engines.builds
    assert line.startswith(chosen)


def test_without_an_engine_it_says_what_to_install(engines: Engines) -> None:
    done = engines.run()
    assert done.returncode != 0
    assert "apt install buildah" in done.stderr
