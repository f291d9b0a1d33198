"""What carries an agent: the pod's supervisor, the base class of agents, life cycle, heartbeats, logs and metrics.

Importing this package loads nothing else; a console script's first import must not cost NumPy and Numba.
"""
