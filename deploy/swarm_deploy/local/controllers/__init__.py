"""The controllers that a Swarm's objects need: garbage collection, endpoints, disruption budgets, the nodes' health.

Each is level-triggered: a change puts a key on a queue, and the work on a key looks at what there is now. Namespaces
and definitions are emptied by the API server's own sweeper, which also furnishes namespaces with what pods expect.
"""
