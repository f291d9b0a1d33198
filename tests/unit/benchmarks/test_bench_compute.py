"""The compute benchmark's rows are those that were asked for, and each names a function that is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

COMPUTE = Path(__file__).resolve().parents[2] / "benchmarks" / "compute"
GOALS = {
    "triad_vs_c_stream": 0.95,
    "fused_vs_numpy": 2,
    "gemm_vs_openblas": 0.98,
    "montecarlo_vs_numpy": 5,
    "montecarlo_vs_c": 0.9,
    "agent_ready_p99_s": 0.05,
    "agent_start_vs_ray_actor": 10,
    "efficiency_100us": 0.9,
    "sklearn_style_map_vs_joblib_loky": 1,
}
_LISTS = """
import sys; sys.path.insert(0, sys.argv[1])
import bench
print([(r.name, r.goal, [(str(m.file), m.function) for m in (r.ours, r.peer) if m]) for r in bench.ROWS])
"""


def test_every_row_has_its_goal_and_functions_that_exist() -> None:
    done = subprocess.run([sys.executable, "-c", _LISTS, str(COMPUTE)], check=True, capture_output=True, text=True)
    rows = ast.literal_eval(done.stdout)
    assert GOALS.items() <= {name: goal for name, goal, _ in rows}.items()
    for _, _, measures in rows:
        for file, function in measures:
            defined = {node.name for node in ast.parse(Path(file).read_text()).body if hasattr(node, "name")}
            assert function in defined, f"{file} has no {function}"
