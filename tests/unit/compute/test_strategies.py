"""An agent's strategies: which implementations are arms, what is learned of them, kept and shared, and what fails."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agents.compute import learnedfile, registry, team
from swarm_agents.compute.learner import WARMUPS
from swarm_agents.compute.strategies import FILE, SHARED_EVERY, Strategies, file_name, hardware
from swarm_agents.errors import DeadlineExceeded, TaskCancelled


class Bench:
    """A kernel whose implementations take as long as they are told to, on a clock that only they move."""

    def __init__(self, seconds: dict[str, float], **options: Any) -> None:
        self.now, self.seconds = 0.0, seconds
        self.ran: Counter[str] = Counter()
        self.threads: list[int] = []
        self.warnings: list[str] = []

        def reference(values: Any) -> str:
            return self.spend("numpy")

        reference.__annotations__ = {"values": np.ndarray[Any, np.dtype[np.float64]], "return": str}
        self.kernel = registry.Kernel("test.timed", reference)
        for name in seconds:
            if name != "numpy":
                given = options.get(name, {})

                def run(values: Any, name: str = name) -> str:
                    return self.spend(name)

                self.kernel.implementation(name, **given)(run)

    def spend(self, name: str) -> str:
        self.ran[name] += 1
        self.threads.append(team.threads())
        self.now += self.seconds[name]
        return name

    def strategies(self, *files: Path, threads: int = 1, key: str = "here") -> Strategies:
        return Strategies(files, key=key, clock=lambda: self.now, threads=lambda: threads, warn=self.warnings.append)

    def calls(self, strategies: Strategies, count: int, size: int = 100) -> Counter[str]:
        """Which implementations answered so many calls."""
        values = np.zeros(size)
        return Counter(strategies.run(self.kernel, {"values": values}) for _ in range(count))


@pytest.fixture(autouse=True)
def _cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 cores."""
    monkeypatch.setattr(team, "_configured", lambda: 64)
    monkeypatch.setattr(team.os, "sched_getaffinity", lambda pid: range(64))


def test_the_fastest_implementation_answers_nearly_all_calls() -> None:
    bench = Bench({"numpy": 2e-3, "slow": 5e-3, "fast": 1e-3, "default": 3e-3})
    ran = bench.calls(bench.strategies(), 500)
    assert ran["fast"] > 480, ran
    assert min(ran.values()) >= WARMUPS + 1, "each was tried"


def test_a_reference_that_is_the_fastest_is_found_where_calls_are_short() -> None:
    bench = Bench({"numpy": 1e-4, "default": 3e-4})
    assert bench.calls(bench.strategies(), 300)["numpy"] > 280


def test_a_reference_is_never_tried_blindly_where_calls_take_long() -> None:
    bench = Bench({"numpy": 1000.0, "default": 0.1})
    assert bench.calls(bench.strategies(), 300) == {"default": 300}


def test_a_reference_is_not_tried_where_smaller_calls_say_that_it_is_hopeless() -> None:
    bench = Bench({"numpy": 0.0, "default": 0.0})
    chosen = bench.strategies()
    for size in (64, 256, 1024, 4096, 16384):
        bench.seconds |= {"numpy": size * 1e-6, "default": size * 1e-7}
        ran = bench.calls(chosen, 100, size)
        assert ran["numpy"] <= (3 if size == 64 else 0), size


def test_the_price_of_first_trials_is_a_small_share_of_all_time() -> None:
    bench = Bench({"numpy": 3e-2, "other": 3e-2, "third": 3e-2, "default": 1e-2})
    chosen = bench.strategies()
    for size in itertools.islice((2**n for n in itertools.count(4)), 12):
        bench.seconds |= dict.fromkeys(("numpy", "other", "third"), 3e-2)
        bench.calls(chosen, 50, size)
    best = 12 * 50 * 1e-2
    assert bench.now < 1.06 * best, "twelve sizes of fifty calls, and three arms that are three times slower"


def test_a_drift_is_noticed_and_the_other_arm_taken() -> None:
    bench = Bench({"numpy": 5e-3, "default": 1e-3})
    chosen = bench.strategies()
    assert bench.calls(chosen, 200)["default"] > 190
    bench.seconds["default"] = 2e-2
    bench.calls(chosen, 50)
    assert chosen.learner.drifts >= 1
    assert bench.calls(chosen, 100)["numpy"] > 90


def test_arms_are_the_implementations_that_may_run_here() -> None:
    options = {"threads": {"parallel": True, "default": False}, "gpu": {"device": True, "default": False}}
    bench = Bench({"numpy": 1e-3, "threads": 1e-4, "gpu": 1e-5, "simd": 1e-3}, **options)
    assert set(bench.calls(bench.strategies(), 100)) == {"simd", "numpy"}, "one core, and no device"
    bench.threads.clear()
    ran = bench.calls(bench.strategies(threads=64), 100)
    assert ran["threads"] > 90
    assert "gpu" not in ran
    assert {16, 32, 64} <= set(bench.threads), "all of the cores, a half and a quarter of them were tried"


def test_when_an_agent_gets_other_cores_the_arms_are_others() -> None:
    bench = Bench({"numpy": 1e-3, "threads": 1e-5, "simd": 1e-4}, threads={"parallel": True, "default": False})
    cores = [4]
    chosen = Strategies(clock=lambda: bench.now, threads=lambda: cores[0])
    assert bench.calls(chosen, 200)["threads"] > 150
    cores[0] = 1
    chosen.tend(0)
    assert "threads" not in bench.calls(chosen, 200)


def test_what_an_implementation_does_not_take_it_is_not_asked_for() -> None:
    bench = Bench({"numpy": 1e-3, "short": 1e-6}, short={"when": lambda values: len(values) < 10})
    chosen = bench.strategies()
    assert bench.calls(chosen, 100, 5)["short"] > 90
    assert bench.calls(chosen, 100, 50) == {"numpy": 100}


def test_the_implementation_that_a_caller_names_is_run() -> None:
    bench = Bench({"numpy": 1e-3, "fast": 1e-6})
    chosen = bench.strategies()
    bench.calls(chosen, 100)
    bench.ran.clear()
    for _ in range(5):
        bench.kernel.run((np.zeros(3),), implementation="numpy", strategies=chosen)
    assert bench.ran == {"numpy": 5}


def test_a_kernel_with_one_implementation_asks_nobody() -> None:
    class Nobody:
        def run(self, kernel: registry.Kernel, bound: dict[str, Any]) -> Any:
            raise AssertionError("asked")

    assert registry.get("core.echo").run((7,), strategies=Nobody()) == 7


def test_an_arm_that_fails_alone_costs_no_answer_and_is_not_chosen_again() -> None:
    bench = Bench({"numpy": 1e-3, "broken": 1e-6, "default": 1e-3}, broken={"default": False})

    def fail(values: Any) -> str:
        bench.ran["broken"] += 1
        raise ZeroDivisionError("in the arm")

    bench.kernel.implementations["broken"] = registry.Implementation("broken", fail)
    chosen = bench.strategies()
    assert sum(bench.calls(chosen, 200).values()) == 200
    assert bench.ran["broken"] == 1
    (warning,) = bench.warnings
    assert warning.startswith("kernel test.timed: its implementation broken failed where default did not (ZeroDiv")


def test_what_all_implementations_raise_is_the_answer_and_nobodys_fault() -> None:
    bench = Bench({"numpy": 1e-3, "fast": 1e-6})
    chosen = bench.strategies()

    def fail(values: Any) -> str:
        raise ValueError("no such thing")

    for name in ("numpy", "fast"):
        bench.kernel.implementations[name] = registry.Implementation(name, fail)
    for _ in range(20):
        with pytest.raises(ValueError, match="no such thing"):
            chosen.run(bench.kernel, {"values": np.zeros(3)})
    assert bench.warnings == []


@pytest.mark.parametrize("error", [TaskCancelled, DeadlineExceeded])
def test_a_task_that_is_not_wanted_any_more_is_not_begun_again_by_another_arm(error: type[Exception]) -> None:
    bench = Bench({"numpy": 1e-3, "other": 1e-3, "default": 1e-3}, other={"default": False})
    chosen = bench.strategies()

    def stop(values: Any) -> str:
        raise error("while it ran")

    bench.kernel.implementations["other"] = registry.Implementation("other", stop)
    with pytest.raises(error):
        bench.calls(chosen, 50)
    assert bench.warnings == []


def test_an_agent_that_is_restarted_starts_warm(tmp_path: Path) -> None:
    bench = Bench({"numpy": 5e-3, "other": 2e-3, "default": 1e-3}, other={"default": False})
    before = bench.strategies(tmp_path / "learned")
    bench.calls(before, 100)
    before.share()
    after = bench.strategies(tmp_path / "learned")
    assert after.load() == 3
    assert bench.calls(after, 50) == {"default": 50}


def test_of_other_hardware_nothing_is_taken(tmp_path: Path) -> None:
    bench = Bench({"numpy": 5e-3, "default": 1e-3})
    before = bench.strategies(tmp_path / "learned")
    bench.calls(before, 100)
    before.share()
    assert bench.strategies(tmp_path / "learned", key="there").load() == 0


@pytest.mark.parametrize("torn", [b"", b"SWLEARN", b"x" * 1000, None])
def test_a_torn_file_is_no_file_and_is_written_anew(tmp_path: Path, torn: bytes | None) -> None:
    path, bench = tmp_path / "learned", Bench({"numpy": 5e-3, "default": 1e-3})
    before = bench.strategies(path)
    bench.calls(before, 100)
    before.share()
    path.write_bytes(path.read_bytes()[:-5] if torn is None else torn)
    after = bench.strategies(path)
    assert after.load() == 0
    bench.calls(after, 100)
    after.share()
    assert bench.strategies(path).load() == 2
    assert [each.name for each in tmp_path.iterdir()] == ["learned"]


def test_two_agents_learn_from_each_other_while_they_run(tmp_path: Path) -> None:
    bench = Bench({"numpy": 1e-3, "default": 1.5e-3})
    one, two = bench.strategies(tmp_path / "learned"), bench.strategies(tmp_path / "learned")
    bench.calls(one, 100)
    one.share()
    bench.calls(two, 100, 4000)
    two.share()
    bench.ran.clear()
    bench.calls(two, 30)
    assert bench.ran["default"] == 0, "the other agent has tried that"
    assert {size for _, size, _ in learnedfile.read(tmp_path / "learned", "here")} == {6, 11}


def test_agents_that_share_at_once_leave_a_whole_file_and_nothing_else(tmp_path: Path) -> None:
    bench = Bench({"numpy": 1e-3, "default": 1.5e-3})
    agents = []
    for number in range(4):
        agents.append(bench.strategies(tmp_path / "learned"))
        bench.calls(agents[-1], 60, 100 << number)

    def share(strategies: Strategies) -> None:
        for _ in range(20):
            strategies.share()

    threads = [threading.Thread(target=share, args=(each,)) for each in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.name for each in tmp_path.iterdir()] == ["learned"]
    for each in agents:  # who wrote at the same moment as another may have lost to it, and brings it again
        each.share()
    assert bench.strategies(tmp_path / "learned").load() == 8


def test_the_file_is_written_now_and_then_and_not_by_tasks(tmp_path: Path) -> None:
    path, bench = tmp_path / "learned", Bench({"numpy": 1e-3, "default": 1.5e-3})
    chosen = bench.strategies(path)
    bench.calls(chosen, 100)
    assert not path.exists()
    chosen.tend(5)
    assert chosen.due_ns > 5
    assert not path.exists(), "not before its time"
    bench.now += SHARED_EVERY
    chosen.tend(10)
    assert path.exists()
    written = path.stat().st_mtime_ns
    chosen.tend(20)
    assert path.stat().st_mtime_ns == written


def test_a_directory_that_can_not_be_written_is_said_once(tmp_path: Path) -> None:
    bench = Bench({"numpy": 1e-3, "default": 1.5e-3})
    chosen = bench.strategies(tmp_path / "nowhere" / "learned", tmp_path / "learned")
    bench.calls(chosen, 100)
    chosen.share()
    chosen.share()
    assert len(bench.warnings) == 1
    assert (tmp_path / "learned").exists(), "the other file is written all the same"


def test_the_hardwares_digest_is_in_the_files_name() -> None:
    assert file_name() == FILE + hardware()
    assert len(hardware()) == 16


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(1e-6, 1e-1), min_size=1),
    st.lists(st.tuples(st.sampled_from([1, 30, 1000, 40_000]), st.integers(1, 60)), max_size=12),
    st.integers(1, 16),
)
def test_every_call_is_answered_once_by_an_arm_that_was_offered(
    seconds: dict[str, float], mix: list[tuple[int, int]], threads: int
) -> None:
    bench = Bench({"numpy": 1e-3, **seconds}, a={"parallel": True}, b={"when": lambda values: len(values) < 500})
    chosen = bench.strategies(threads=threads)
    for size, count in mix:
        ran = bench.calls(chosen, count, size)
        assert sum(ran.values()) == count
        assert size < 500 or not ran["b"]
        assert threads > 1 or not ran["a"]
    asked = sum(count for _, count in mix)
    assert sum(bench.ran.values()) == asked
    learner = chosen.learner
    under_way = sum(entry.planned - entry.left for entry in learner._classes.values())
    assert sum(learner.ran.values()) + under_way == asked
    assert all(figure.weight >= 1 for figure in learner.learned().values())


def make_amounts() -> list[tuple[str, Callable[..., Any]]]:
    return [(name, registry.get(name).sample) for name in registry.names() if registry.get(name).sample is not None]


@pytest.mark.parametrize(("name", "sample"), make_amounts(), ids=lambda each: each if isinstance(each, str) else "")
def test_every_kernel_says_how_much_work_a_call_is(name: str, sample: Callable[..., Any]) -> None:
    kernel = registry.get(name)
    for seed in range(5):
        drawn = sample(np.random.default_rng(seed))
        amount = kernel.amount_of(kernel.bind(drawn.args, drawn.kwargs))
        assert 0 < amount < np.inf
