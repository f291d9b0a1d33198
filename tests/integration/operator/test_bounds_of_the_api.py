"""The API server refuses each breach of the schema, and random specs, with the path of the field; so does the operator.

The embedded cluster and a real one word some bounds differently; compared is the field and the essential part.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from support.badspecs import FULL, Case, cases, random_spec, refusals_of_the_schema
from support.kubectl import Kubectl
from support.operatorlive import Client
from swarm_operator.api.read import read_spec
from swarm_operator.kube import ApiError

#: Many at once would only wait for each other.
_AT_ONCE = 8


async def refusal(client: Client, spec: Any) -> str:
    """What the API server answers, strict as `kubectl apply` is; empty: it accepts."""
    body = {"apiVersion": "agentswarm.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": "risk"}, "spec": spec}
    try:
        await client.create(body, dryRun="All", fieldValidation="Strict")
    except ApiError as error:
        return str(error) if error.status in (400, 422) else f"no refusal, but a failure: {error}"
    return ""


async def test_the_full_spec_is_accepted(client: Client) -> None:
    assert await refusal(client, FULL) == ""


async def test_every_bound_is_refused_by_the_api_server_with_the_fields_path(client: Client) -> None:
    limit = asyncio.Semaphore(_AT_ONCE)

    async def wrong(case: Case) -> str:
        async with limit:
            said = await refusal(client, case.spec)
        return "" if case.path in said and case.says.lower() in said.lower() else f"{case}: {said!r}"

    found = [text for text in await asyncio.gather(*map(wrong, cases())) if text]
    assert not found, "\n".join(found)


async def test_a_hundred_and_more_random_invalid_specs_are_refused_with_a_field_by_server_and_models_alike(
    client: Client,
) -> None:
    chance, invalid = random.Random(20261123), 0
    for _ in range(150):
        spec = random_spec(chance)
        said = await refusal(client, spec)
        parsed, wrong = read_spec(spec)
        assert bool(said) == bool(refusals_of_the_schema(spec)) == (parsed is None), (said, wrong)
        if said:
            invalid += 1
            # a rule over fields of the spec itself names just that
            assert "spec." in said or "spec: " in said
            assert wrong.startswith("spec")
    assert invalid >= 100


@pytest.mark.parametrize("field", ["spec", "spec.compute.gpus", "status", "spec.compute.podTemplate"])
def test_kubectl_explain_is_the_reference(kubectl: Kubectl, field: str) -> None:
    said = kubectl("explain", f"swarm.{field}", "--recursive").out
    assert "<no description>" not in said
    assert "FIELDS:" in said
