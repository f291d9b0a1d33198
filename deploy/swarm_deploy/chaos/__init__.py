"""`swarm chaos`: faults drawn from a seed, on a running swarm, while clients check every answer."""
