"""Events: aggregated, rate-limited, and about what people want to know."""

from __future__ import annotations

from typing import Any

from support.operatorkit import make_swarm
from swarm_operator.actions import Apply, CreatePod, DeletePod, PushSettings
from swarm_operator.events import Note, Recorder, notes_of
from swarm_operator.execute import Failure
from swarm_operator.kube import ApiError


class Api:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.merged: list[dict[str, Any]] = []
        self.gone = False

    async def create(self, manifest: dict[str, Any]) -> bytes:
        self.created.append(manifest)
        return b"{}"

    async def merge(self, kind: str, namespace: str, name: str, patch: dict[str, Any]) -> bytes:
        if self.gone:
            raise ApiError(404, "NotFound", "its time was up")
        self.merged.append(patch)
        return b"{}"


def recorder(api: Api, clock: list[float]) -> Recorder:
    return Recorder(api, "instance", lambda: clock[0])  # type: ignore[arg-type]


async def test_equal_notes_are_one_event_with_a_count() -> None:
    api, clock = Api(), [0.0]
    one = recorder(api, clock)
    for _ in range(3):
        one.record(make_swarm(), [Note("Warning", "Failed", "quota")])
        await one.flush()
    (event,) = api.created
    assert (event["reason"], event["type"], event["involvedObject"]["name"]) == ("Failed", "Warning", "risk")
    assert [patch["count"] for patch in api.merged] == [2, 3]


async def test_an_event_that_has_expired_is_written_anew() -> None:
    api, clock = Api(), [0.0]
    one = recorder(api, clock)
    for _ in range(2):
        one.record(make_swarm(), [Note("Normal", "Created", "x")])
        await one.flush()
        api.gone = True
    assert len(api.created) == 2


async def test_a_swarm_has_a_budget_that_refills_and_does_not_touch_anothers() -> None:
    api, clock = Api(), [0.0]
    one = recorder(api, clock)
    one.record(make_swarm(), [Note("Normal", "Created", f"n{n}") for n in range(40)])
    one.record(make_swarm(uid="other"), [Note("Normal", "Created", "n")])
    await one.flush()
    assert len(api.created) == 26
    assert one.dropped == 15
    clock[0] = 20.0
    one.record(make_swarm(), [Note("Normal", "Created", f"m{n}") for n in range(5)])
    await one.flush()
    assert len(api.created) == 28


def test_what_one_plan_did_is_one_note_a_kind_of_action() -> None:
    done = [CreatePod("Pod", f"p{n}", {}) for n in range(10)]
    done += [Apply("Service", "risk", {}), DeletePod("Pod", "old", "u", "scaled in to 2")]  # type: ignore[list-item]
    done += [PushSettings("Pod", "p0", "u", "1.2.3.4", 0, "r")]  # type: ignore[list-item]
    notes = notes_of(done, [Failure(CreatePod("Pod", "p10", {}), ApiError(403, "Forbidden", "exceeded quota"))])
    texts = {note.reason: note.message for note in notes}
    assert texts["Created"].startswith("Created Service risk, pod p0, ")
    assert texts["Created"].endswith("and 7 more")
    assert texts["Deleted"] == "Deleted pod old (scaled in to 2)"
    assert "exceeded quota" in texts["Failed"]
    assert set(texts) == {"Created", "Deleted", "Failed"}, "a push is no news for people"
