"""What comes next on this node: forecasts of its figures (`forecast`), and of its agents' failures (`hazards`).

Everything but `watcher`, which hooks it into the resource agent, is pure: values and the clock are passed in.
"""
