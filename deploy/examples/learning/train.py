"""Trains a logistic regression on a swarm: a step is a `map` over the shards, a sum, and an update of the model.

    swarm up && export KUBECONFIG=$(swarm status --kubeconfig)
    kubectl apply -f deploy/examples/learning/swarm.yaml
    python deploy/examples/learning/train.py                     # or --connect URL

The agents keep nothing between steps: a shard's task brings its data and the model as it is, so an agent that dies
costs its task's time and nothing else. `map` gives the answers in the order of the shards, so the sums are formed in
one order, and the weights are the same however many agents there are and whichever was first.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

#: As `Swarm.map`: a kernel's name, an iterable for each argument, and the answers in order.
Map = Callable[..., Iterator[dict[str, Any]]]


def train(
    map_: Map, features: Sequence[np.ndarray], labels: Sequence[np.ndarray], *, steps: int = 300, ridge: float = 1e-3
) -> tuple[np.ndarray, float, list[float]]:
    """Weights, bias, and the mean loss before each step: gradient descent with Nesterov's momentum.

    Args:
        map_: computes the kernel for each shard.
        features, labels: the shards, [n, features] and [n] each.
        steps: how many.
        ridge: adds ridge/2·|weights|² to the mean loss.
    """
    weights, bias, losses = np.zeros(features[0].shape[1]), 0.0, []
    previous = np.zeros(len(weights) + 1)
    # The loss curves at most by a quarter of the features' largest mean square, so this step never overshoots.
    count = sum(len(y) for y in labels)
    rate = 1.0 / (0.25 * (sum(float((x * x).sum()) for x in features) / count + 1.0) + ridge)
    for step in range(steps):
        parts = map_("learning.logistic_gradient", features, labels, itertools.repeat(weights), itertools.repeat(bias))
        gradient, slope, loss = np.zeros(len(weights)), 0.0, 0.0
        for part in parts:  # the reduce
            gradient += part["gradient"]
            slope += part["bias"]
            loss += part["loss"]
        losses.append(loss / count + 0.5 * ridge * float(weights @ weights))
        reached = np.append(weights - rate * (gradient / count + ridge * weights), bias - rate * slope / count)
        ahead = reached + step / (step + 3.0) * (reached - previous)
        weights, bias, previous = ahead[:-1], float(ahead[-1]), reached
    return previous[:-1], float(previous[-1]), losses


def data(samples: int, features: int, shards: int, seed: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random samples whose labels a logistic model with known weights draws, in shards."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, features))
    z = x @ np.linspace(-2.0, 2.0, features) + 0.5
    y = (rng.random(samples) < 1.0 / (1.0 + np.exp(-z))).astype(float)
    return np.array_split(x, shards), np.array_split(y, shards)


def main() -> None:
    """Trains on the swarm and says how well the model predicts."""
    from swarm_agents.client import Swarm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connect", help="a swarm's URL or a connection file; none: found as everywhere")
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    x, y = data(given.samples, given.features, given.shards)
    with Swarm.connect(given.connect) as swarm:
        weights, bias, losses = train(swarm.map, x, y, steps=given.steps)
    right = sum(int(((shard @ weights + bias > 0) == (label > 0.5)).sum()) for shard, label in zip(x, y, strict=True))
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {given.steps} steps over {given.shards} shards")
    print(
        f"{right / given.samples:.1%} of the samples are predicted rightly; bias {bias:.3f}, weights {weights.round(3)}"
    )


if __name__ == "__main__":
    main()
