"""The simulation at scale: how well work is placed, what hubs say to each other, how fast a lost node is noticed and
its work begun again, from ten nodes to a thousand.

python -m simulation.scale --out docs/scale          all cases, then the plots
python -m simulation.scale --cases 100:10 --out DIR  one: so many nodes, so many of them lost
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import random
import sys
import time
from pathlib import Path
from typing import Any

from simulation.hub_agent import Log
from simulation.scale_engine import Clockwork, Machine, Net, central_queue, poisson
from swarm_agents.config import Hub as HubAddress
from swarm_agents.config import Settings, Transport
from swarm_agents.resource.carrier import Carrier
from swarm_agents.resource.hub import Hub
from swarm_agents.wire.keys import Keys

__all__ = ["CASES", "simulate"]

#: Nodes, and how many of them are lost.
CASES = ((10, 1), (20, 1), (50, 1), (100, 1), (100, 10), (200, 1), (200, 10), (1000, 1), (1000, 10), (1000, 100))
AGENTS = 10
#: Seconds that a task runs (exponentially distributed), and the share of all agents' time that tasks take.
RUN, UTILISATION = 0.5, 0.7
#: Up to this many nodes each hub has a link to each other one; beyond, `OBSERVERS` have.
FULL_MESH, OBSERVERS = 200, 10
#: Tasks come to one node of ten, at most `OBSERVERS`.
_HOT = 10
#: Seconds: settling, measuring, and after the loss.
_WARM, _MEASURE, _AFTER = 1.0, 1.0, 1.5


def simulate(nodes: int, lost: int, seed: int = 1) -> dict[str, Any]:
    """One case; figures in seconds, messages and bytes."""
    began = time.process_time()
    rng = random.Random(seed)
    clockwork = Clockwork()
    full = nodes <= FULL_MESH
    observers = nodes if full else OBSERVERS
    addresses = [HubAddress(node=f"n{i}", address=f"tcp://n{i}:7400") for i in range(nodes)]
    transport = Transport(encryption=False)
    settings_of = [
        Settings(swarm="scale", namespace="sim", uid="scale", transport=transport, hubs=tuple(hubs))
        for hubs in (addresses, addresses[:observers])
    ]
    detected: dict[tuple[str, str], float] = {}
    right = Carrier._lost_link

    def lost_link(carrier: Any, peer: Any, link: Any, outcome: Any) -> None:
        detected.setdefault((carrier._node, peer.node), clockwork.now)
        right(carrier, peer, link, outcome)

    Carrier._lost_link = lost_link  # type: ignore[method-assign]
    nets, machines, hubs = [], [], []
    silent = Log(lambda what, **fields: None)
    for number in range(nodes):
        net = Net(clockwork)
        machine = Machine(net, AGENTS, RUN)
        hub = Hub(
            machine,  # type: ignore[arg-type]
            settings_of[0 if number < observers else 1],
            Keys(),
            node=f"n{number}",
            name=f"hub-{number}",
            host=f"n{number}",
            log=silent,
            rng=random.Random(rng.getrandbits(32)),
            network=net,  # type: ignore[arg-type]
        )
        nets.append(net)
        machines.append(machine)
        hubs.append(hub)
    start = clockwork.now
    for net, hub in zip(nets, hubs, strict=True):
        # They start within a second of each other, as pods do, and so their heartbeats are spread.
        clockwork.at(start + rng.random() * 0.5, net, hub.start)
    hot = range(min(max(nodes // _HOT, 1), OBSERVERS))
    begin, moment = start + _WARM, start + _WARM + _MEASURE
    end = moment + (_AFTER if lost else 0.0)
    arrivals = []
    rate = UTILISATION * nodes * AGENTS / RUN / len(hot)
    for number in hot:
        for count, when in enumerate(poisson(rng, rate, begin - 0.5, end)):
            run = rng.expovariate(1 / RUN)
            arrivals.append((when, run, number))
            clockwork.at(when, nets[number], machines[number].arrive, (number + 1, count + 1), run)
    arrivals.sort()
    clockwork.run(begin)
    sent = [(net.sent, net.sent_bytes) for net in nets[:observers]]
    clockwork.run(moment)
    traffic = [(net.sent - a, net.sent_bytes - b) for net, (a, b) in zip(nets[:observers], sent, strict=True)]
    placed = [work for n in hot for work in machines[n].own.values() if begin <= work.since < moment - 0.2]
    waits = [clockwork.begun[work.submit.task] - work.since for work in placed if work.submit.task in clockwork.begun]
    # -- the loss
    gone = set(rng.sample(range(len(hot), nodes), lost))
    in_hand = []
    for number in hot:
        for node in gone:
            peer = hubs[number].peers.get(f"n{node}")
            in_hand += [forward.claim.token for forward in peer.forwarded.values()] if peer else []
    detected.clear()
    for number in gone:
        nets[number].lost = True
    clockwork.run(end)
    Carrier._lost_link = right  # type: ignore[method-assign]
    names = {f"n{node}" for node in gone}
    detections = [when - moment for (here, there), when in detected.items() if there in names and here not in names]
    false = sum(1 for here, there in detected if there not in names and here not in names)
    again = [at - moment for work in in_hand if (at := clockwork.begun[work.submit.task]) > moment]
    # Its answer had left the lost node, and came in.
    under_way = sum(1 for work in in_hand if clockwork.begun[work.submit.task] <= moment and work.done)
    mixed = [(when, run) for when, run, _ in arrivals]
    ideal = [w for (when, _), w in zip(mixed, central_queue(mixed, nodes * AGENTS), strict=True) if begin <= when]
    expected = len(gone) * (observers - sum(1 for node in gone if node < observers))
    return {
        "nodes": nodes,
        "agents": nodes * AGENTS,
        "lost": lost,
        "full_mesh": full,
        "hubs_with_all_links": observers,
        "tasks_placed": len(placed),
        "wait_s": _spread(waits),
        "central_queue_wait_s": _spread(ideal),
        "not_begun_in_time": len(placed) - len(waits),
        "moved_share": sum(1 for work in placed if work.claimed) / max(len(placed), 1),
        "messages_per_hub_s": _spread([a / _MEASURE for a, _ in traffic]),
        "bytes_per_hub_s": _spread([b / _MEASURE for _, b in traffic]),
        "detect_s": _spread(detections),
        "detections": len(detections),
        "detections_expected_at_least": expected,
        "false_losses": false,
        "in_hand_when_lost": len(in_hand),
        "answers_under_way": under_way,
        "begun_again": len(again),
        "begun_again_s": _spread(again),
        "cpu_s": round(time.process_time() - began, 1),
    }


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    values = sorted(values)
    return {
        "mean": round(sum(values) / len(values), 6),
        "p50": round(values[len(values) // 2], 6),
        "p99": round(values[min(int(len(values) * 0.99), len(values) - 1)], 6),
        "max": round(values[-1], 6),
    }


def _case(text: str) -> tuple[int, int]:
    try:
        nodes, lost = map(int, text.split(":"))
    except ValueError:
        sys.exit(f"{text!r} is no case: expected NODES:LOST, as 100:10")
    if not 2 <= nodes <= 2000 or not 0 <= lost <= nodes // 2:
        sys.exit(f"{text}: expected 2 to 2000 nodes, of which at most half are lost")
    return nodes, lost


def _run(case: tuple[int, int]) -> dict[str, Any]:
    gc.disable()
    return simulate(*case)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.scale", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--cases", default="", metavar="NODES:LOST,...", help="only these; others stay as they were")
    parser.add_argument("--out", type=Path, default=Path("docs/scale"), help="where the figures and plots go")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    cases = [_case(text) for text in asked.cases.split(",")] if asked.cases else list(CASES)
    asked.out.mkdir(parents=True, exist_ok=True)
    file = asked.out / "scale.json"
    found = {(f["nodes"], f["lost"]): f for f in json.loads(file.read_text())} if file.exists() and asked.cases else {}
    with multiprocessing.get_context("spawn").Pool(min(asked.processes, len(cases)), maxtasksperchild=1) as pool:
        for figures in pool.imap_unordered(_run, cases, chunksize=1):
            found[figures["nodes"], figures["lost"]] = figures
            print(json.dumps(figures))
            sys.stdout.flush()
            file.write_text(json.dumps([found[key] for key in sorted(found)], indent=1) + "\n")
    from simulation.scale_plots import draw, tabulate

    tabulate([found[key] for key in sorted(found)], asked.out)
    draw([found[key] for key in sorted(found)], asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
