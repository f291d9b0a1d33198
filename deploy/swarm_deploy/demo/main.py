"""`swarm demo`, from nothing to a report: start a cluster, apply the example, compute, kill an agent, check, clean up.

Whatever happens, an error, Ctrl-C or SIGTERM, ends in `Ground.stop`, and while that runs further signals wait. The exit
code is 0 only if every check held, 1 if one did not or the demo could not be done, and 130 or 143 after a signal.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from swarm_agents.errors import SwarmError
from swarm_deploy.demo import chaos, checks
from swarm_deploy.demo.checks import Check
from swarm_deploy.demo.data import panel, read_closes
from swarm_deploy.demo.figures import figures, percentiles
from swarm_deploy.demo.ground import DemoError, Ground
from swarm_deploy.demo.job import PROBES, Book, Costs, Job, headlines, plan, probes
from swarm_deploy.demo.report import Outcome, money, render
from swarm_deploy.demo.runner import Executor, Record, Runner, run_all
from swarm_deploy.demo.view import Status, View, duration, make_view
from swarm_deploy.demo.watch import Audit, Sample, Watch
from swarm_deploy.session import Interrupted, signals_end_it, signals_wait, use_the_warm_cache

__all__ = ["EXAMPLES", "load_books", "measure", "run", "work"]

EXAMPLES = Path(__file__).parents[2] / "examples"
#: The report, relative to where the demo is run.
REPORT = Path("build") / "demo" / "report.html"
#: How often the boards are read for the view (seconds), and the records collected.
_LOOK, _PUMP = 0.1, 0.002
#: A job that takes this many times as long as planned is given up.
_PATIENCE = 6.0


def run(*, seconds: float = 20.0, nodes: int = 2, report: Path = REPORT, view: View | None = None) -> int:
    """Does the whole demo; returns the exit code.

    Args:
        seconds: how long the job should keep the machine busy.
        nodes: simulated nodes of the cluster.
        report: where the report is written.
        view: where progress is shown; by default the terminal, or lines of text where there is none.
    """
    view = view or make_view()
    ground: Ground | None = None
    left: list[str] = []
    logs: list[Path] = []
    use_the_warm_cache()
    try:
        with signals_end_it():
            try:
                ground = Ground(nodes)
                outcome = _demo(ground, seconds, view)
            except SwarmError:
                logs = ground.keep_logs(report.parent) if ground is not None else []
                raise
            finally:
                with signals_wait():
                    left = _clean_up(ground, view)
                    view.close()
    except Interrupted as interrupted:
        print(f"{interrupted}: stopped; {', '.join(left) + ' left' if left else 'nothing is left behind'}", flush=True)
        return 128 + interrupted.number
    except SwarmError as error:
        seen = f"\nLogs: {', '.join(map(str, logs))}" if logs else ""
        print(f"The demo could not be done: {error}{seen}", file=sys.stderr, flush=True)
        return 1
    outcome = _with_check(
        outcome, Check("Nothing is left behind", not left, ", ".join(left) or "no process, file or port")
    )
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(render(outcome), encoding="utf-8")
    print(_summary(outcome, report))
    return 0 if outcome.held else 1


def _demo(ground: Ground, seconds: float, view: View) -> Outcome:
    """Everything between the cluster's start and its end."""
    books = load_books(EXAMPLES / "risk")
    core = books["core"].panel
    view.say(f"{len(core.returns):,} days of {', '.join(core.names)}, {core.dates[0]} to {core.dates[-1]}")
    view.step(f"starting a cluster with {ground.nodes} simulated nodes")
    begun = time.monotonic()
    ground.start(view.step)
    view.say(f"the cluster and its operator run after {duration(time.monotonic() - begun)}")
    spec = ground.apply(EXAMPLES / "risk.yaml")
    wanted = int(spec["compute"]["replicas"])
    took = ground.wait_ready(view.step)
    view.say(f"Swarm {ground.name} is Ready {duration(took)} after it was applied")

    from swarm_agents.client import Swarm

    # The watch holds what it attached to; the client leaves its board before the cluster is stopped.
    with Swarm.connect(ground.connection()) as swarm:
        watch = Watch(ground.boards())
        view.step("measuring what a task costs here")
        before = watch.stats()
        first = run_all(swarm, headlines(books), timeout=60)
        costs = measure(swarm, books, first[0].value)
        cores = min(len(os.sched_getaffinity(0)), wanted)
        value = first[0].value
        job = plan(books, value["profits"], value["moves"], costs, seconds=seconds, cores=cores)
        view.say(f"{len(job.items):,} tasks for about {seconds:.0f} s on {cores} cores, by {swarm.endpoint}")
        home = next((node for node, path in ground.boards().items() if str(path) in swarm.endpoint), "")
        runner, victim = work(swarm, job, watch, view, seconds=seconds, cores=cores, uid=ground.uid, home=home)
        audit = _settled_audit(watch, before)
        failover = _await_failover(watch, victim, runner.records)
        if failover is not None and failover.resumed is not None:
            view.say(f"its task ran elsewhere {duration(failover.resumed)} after the kill")
        healed = _await(lambda: _whole(ground, watch, wanted), timeout=30.0)
        swarm_checks = _swarm_checks(runner, audit, failover, healed, wanted)
        agents = sorted({r.agent for r in runner.records if r.agent})
    view.step("computing the figures again in one process")
    found = figures(books, first, runner.records)
    figure_checks = checks.check_figures(first, runner.records, found, say=lambda s: view.step(f"checking: {s}"))
    return Outcome(
        books,
        found,
        runner.records,
        runner.began,
        max(r.done for r in runner.records),
        audit,
        failover,
        [*swarm_checks, *figure_checks, *checks.check_backtests(found)],
        _facts(job, agents, cores, ground.nodes),
    )


def load_books(directory: Path) -> dict[str, Book]:
    """The example's books, with the history of what they hold."""
    path = directory / "books.yaml"
    if not path.is_file():
        raise DemoError(f"{path} is missing: run the demo from a clone of the repository")
    raw = read_closes(directory / "closes.csv.gz")
    holdings: Mapping[str, Mapping[str, float]] = yaml.safe_load(path.read_text())
    return {
        name: Book(name, panel(raw, list(book)), np.array([float(v) for v in book.values()]))
        for name, book in holdings.items()
    }


def measure(executor: Executor, books: Mapping[str, Book], headline: Mapping[str, Any]) -> Costs:
    """What a task of each sort costs on an idle agent: the faster of two runs, after one that warms up."""
    found = {}
    for name, item in probes(books, headline["profits"], headline["moves"]).items():
        records = run_all(executor, [item] * 3, timeout=60)
        found[name] = max(min(r.run for r in records[1:]) / PROBES[name], 1e-7)
    return Costs(**found)


def work(
    executor: Executor, job: Job, watch: Watch, view: View, *, seconds: float, cores: int, uid: str, home: str = ""
) -> tuple[Runner, chaos.Victim | None]:
    """Runs the job, and kills an agent halfway, on the node `home`; returns the runner, and who was killed.

    Raises:
        DemoError: it took far longer than planned.
    """
    runner = Runner(executor, job, seconds=seconds)
    status = Status(runner, cores)
    victim: chaos.Victim | None = None
    tried = False
    looked = 0.0
    while not runner.finished:
        new = runner.pump()
        now = time.monotonic()
        sample: Sample | None = None
        if now - looked >= _LOOK:
            looked, sample = now, watch.sample()
        status.update(new, sample, now)
        view.show(status)
        if not tried and runner.progress >= 0.5:
            tried = True
            victim = chaos.kill(watch, uid=uid, node=home)
            if victim is not None:
                view.say(f"killed {victim.agent} on {victim.node} (process {victim.pid}) in the middle of a task")
        if now - runner.began > _PATIENCE * seconds + 30:
            runner.cancel()
            raise DemoError(
                f"{len(runner.underway)} tasks are still without an answer after {now - runner.began:.0f} s"
            )
        time.sleep(_PUMP)
    view.rest()
    return runner, victim


def _settled_audit(watch: Watch, before: Any) -> Audit:
    """The boards' counts when nothing is underway any more: the last commits may still be on their way home."""
    _await(lambda: (a := watch.audit(before)).committed + a.lost >= a.submitted, timeout=5.0)
    return watch.audit(before)


def _await_failover(watch: Watch, victim: chaos.Victim | None, records: list[Record]) -> chaos.Failover | None:
    if victim is None:
        return None
    _await(lambda: (f := chaos.recovered(watch, victim, records)) is not None and f.resumed is not None, timeout=5.0)
    return chaos.recovered(watch, victim, records)


def _whole(ground: Ground, watch: Watch, wanted: int) -> bool:
    """Whether as many agents live as were asked for, on the boards and by the Swarm's status."""
    return len(watch.sample().computing) >= wanted and ground.ready_agents() >= wanted


def _swarm_checks(
    runner: Runner, audit: Audit, failover: chaos.Failover | None, healed: bool, wanted: int
) -> list[Check]:
    failed = [r for r in runner.records if r.error is not None]
    carried = sum(r.hops > 0 for r in runner.records)
    lost = runner.total - len(runner.records) + len(failed) + audit.lost
    words = f"{len(runner.records):,} of {runner.total:,} tasks answered"
    if failed:
        words += f"; task {failed[0].item.number} failed: {failed[0].error}"
    found = [
        Check("No task lost", lost == 0, words),
        Check(
            "No task committed twice",
            audit.twice == 0,
            f"{audit.submitted:,} submitted to boards, {audit.committed:,} committed ({carried:,} went to another "
            f"node's board too), {audit.fenced} refused as late",
        ),
    ]
    if failover is None:
        found.append(Check("A busy agent killed, its tasks run elsewhere", False, "no busy agent was found to kill"))
    else:
        # The board's record counts what one member took back; another one's sweep may have been faster. What was begun
        # again and answered is the proof.
        elsewhere = failover.finished >= max(failover.tasks, 1)
        words = f"{failover.finished} begun again and answered"
        if failover.resumed is not None:
            words += f", running elsewhere after {duration(failover.resumed)}"
        found.append(Check("A busy agent killed, its tasks run elsewhere", elsewhere, words))
    found.append(
        Check("The swarm is whole again", healed, f"{wanted} compute agents ready" if healed else "not in 30 s")
    )
    return found


def _facts(job: Job, agents: list[str], cores: int, nodes: int) -> dict[str, str]:
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.machine(),
    )
    return {
        "Machine": f"{model}, {cores} cores used, {nodes} simulated nodes",
        "Software": ", ".join(f"{p} {version(p)}" for p in ("agentswarm", "numpy", "numba"))
        + f", Python {platform.python_version()}",
        "Agents that computed": ", ".join(agents),
        "Job": f"GARCH fitted anew every {job.refit} days in the backtest; {job.resamples} resamples a task; seed 7",
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _with_check(outcome: Outcome, check: Check) -> Outcome:
    return replace(outcome, checks=[*outcome.checks, check])


def _summary(o: Outcome, report: Path) -> str:
    head, simulated = o.figures.headlines["core/garch"], o.figures.simulation
    asked = percentiles([r.latency for r in o.records if r.item.kind == "what-if"])
    lines = [
        "",
        f"  {money(o.books['core'].value)} held, for one day at 99 %:",
        f"    filtered historical simulation   VaR {money(head['var'])}   ES {money(head['es'])}",
        f"    Monte Carlo, {simulated['paths']:>11,} paths   "
        f"VaR {money(simulated['var'])}   ES {money(simulated['es'])}",
        f"  {len(o.records):,} tasks in {o.ended - o.began:.1f} s ({o.rate:,.0f} /s);  what-if questions under load: "
        f"p50 {duration(asked[0])}, p95 {duration(asked[1])}, p99 {duration(asked[2])}",
    ]
    if o.failover is not None and o.failover.resumed is not None:
        lines.append(
            f"  {o.failover.victim.agent} killed: its task ran elsewhere after {duration(o.failover.resumed)}; "
            f"{o.audit.lost} lost, {o.audit.twice} committed twice"
        )
    lines.append("")
    lines += [f"  {'✓' if c.held else '✗'} {c.name}: {c.detail}" for c in o.checks]
    lines += [
        "",
        f"  Report: {report.resolve()}",
        "  Go on:  swarm up;  kubectl --kubeconfig $(swarm status --kubeconfig) get swarms;  swarm top",
        "",
    ]
    return "\n".join(lines)


# -- the beginning and the end


def _clean_up(ground: Ground | None, view: View) -> list[str]:
    if ground is None:
        return []
    view.step("stopping the cluster")
    ground.stop()
    return ground.leftovers()


def _await(condition: Callable[[], bool], timeout: float) -> bool:
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
