"""The reference of the kernels says each of them, with all that its signature and docstring say."""

from __future__ import annotations

from swarm_agents.compute import registry
from swarm_deploy.kernels_reference import kernels_reference


def test_every_built_in_kernel_is_there_with_its_arguments_and_its_summary() -> None:
    text = kernels_reference()
    for name in registry.names():
        kernel = registry.get(name)
        if not kernel.__module__.startswith("swarm_agents."):
            assert f"### `{name}`" not in text
            continue
        assert text.count(f"### `{name}`\n") == 1
        part = text.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
        assert kernel.summary in part
        assert all(f"| `{p.name}` | {p.expected} |" in part for p in kernel.signature.parameters), name


def test_what_a_kernel_raises_is_a_list() -> None:
    part = kernels_reference().partition("### `science.heat2d`")[2].partition("\n## ")[0]
    assert "Raises:\n\n- BadArguments: the scheme is not stable" in part
