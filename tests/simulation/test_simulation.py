"""The simulator in the suite: a thousand seeds keep every promise, and the checker finds faults that are planted.

Each runs in a process of its own, because the simulator loads the board in its own way (see `simulation.build`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.mutants import MUTANTS, edits
from simulation.patches import PATCHES
from swarm_agents.shm import tasks

#: Faults of different kinds that some hundred seeds find; each is a compilation of its own, so these are a few of all.
#: `make sim-mutants` looks for every one, for longer.
QUICKLY_FOUND = ("commit-without-compare", "missing-fence", "lost-retry", "wrong-lane-order", "leak-on-take")
#: The same of hubs and of clients off the node.
QUICKLY_FOUND_IN_HUBS = ("asked-twice", "acknowledged-in-vain", "not-asked-again", "answer-counted-again")


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the simulator's command."""
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests), "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, "-m", "simulation", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_every_planted_fault_has_its_place_in_the_sources() -> None:
    for module, changes in edits().items():
        text = (Path(tasks.__file__).parent / f"{module}.py").read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{module}.py has changed, plant the fault anew:\n{old}"
            text = text.replace(old, new)


def test_every_fault_that_replaces_a_function_replaces_one_that_is_there() -> None:
    edited = {mutant.name for mutant in MUTANTS.values() if not mutant.edits}
    assert edited == set(PATCHES)
    for name in PATCHES:
        for owner, attribute, wrong in PATCHES[name]():
            right = getattr(owner, attribute)
            assert right is not wrong, name


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_seeds_keep_every_promise() -> None:
    done = simulate("--seeds", "1000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("1000 seeds")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_checker_finds_faults_that_are_planted() -> None:
    done = simulate("--mutants", "--only", ",".join(QUICKLY_FOUND), "--seeds", "400", "--processes", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("found by seed") == len(QUICKLY_FOUND)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_checker_finds_faults_that_are_planted_in_hubs() -> None:
    done = simulate("--mutants", "--only", ",".join(QUICKLY_FOUND_IN_HUBS), "--seeds", "100", "--processes", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("found by seed") == len(QUICKLY_FOUND_IN_HUBS)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_seed_of_several_nodes_gives_the_same_run_again() -> None:
    first, second = (simulate("--seed", "16") for _ in range(2))
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr
    assert "n1-resource-0" in first.stdout, "a seed of several nodes"
    assert first.stdout == second.stdout


def test_a_small_swarm_places_its_work_notices_a_loss_and_begins_again_what_was_lost() -> None:
    code = "import json; from simulation.scale import simulate; print(json.dumps(simulate(10, 1)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    figures = json.loads(done.stdout)
    assert figures["detections"] == figures["detections_expected_at_least"] == 9
    assert figures["begun_again"] == figures["in_hand_when_lost"] > 0
    assert figures["false_losses"] == 0
    assert figures["detect_s"]["max"] < 1.2, "virtual seconds"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_seed_gives_the_same_run_again_and_a_failing_one_says_how() -> None:
    first, second = (simulate("--seed", "24", "--mutant", "commit-without-compare") for _ in range(2))
    assert first.returncode == 1, first.stdout + first.stderr
    assert first.stdout == second.stdout
    failing = simulate("--first", "24", "--seeds", "1", "--mutant", "commit-without-compare", "--processes", "1")
    assert failing.returncode == 1
    assert "make sim SEED=24 MUTANT=commit-without-compare" in failing.stdout
