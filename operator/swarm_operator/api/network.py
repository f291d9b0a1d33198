"""Who may talk with the agents' pods, and with whom they may: what stands in a Swarm of its NetworkPolicy."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from swarm_operator.api.fields import SET, LabelMap, Model, plain

__all__ = ["PEER_RULE", "Egress", "Peer"]

_CIDR: Final = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}|[0-9a-f:]{2,39}/[0-9]{1,3})$"
#: CEL rule and message: a range of addresses has no labels.
PEER_RULE: Final[dict[str, Any]] = {
    "rule": "has(self.cidr) != (has(self.pods) || has(self.namespaces))",
    "message": "give cidr, or pods and namespaces",
}


class Peer(Model):
    """Pods by their labels and those of their namespaces, or a range of addresses."""

    pods: LabelMap | None = plain(None, "Labels of the pods; every pod when empty or left out.", max_length=16)
    namespaces: LabelMap | None = plain(
        None, "Labels of their namespaces; every one when empty, the Swarm's own when left out.", max_length=16
    )
    cidr: Annotated[str, Field(pattern=_CIDR, max_length=43)] | None = plain(
        None, "Addresses, such as 10.0.0.0/8: hosts, or who comes through a load balancer."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Peer:
        if (self.cidr is not None) == (self.pods is not None or self.namespaces is not None):
            raise ValueError(PEER_RULE["message"])
        return self


class Egress(Model):
    """Whom the agents may reach beyond their own swarm."""

    to: Peer = plain(..., "Who that is.")
    protocol: Literal["TCP", "UDP", "SCTP"] = plain("TCP", "The protocol of the ports.")
    ports: list[Annotated[int, Field(ge=1, le=65535)]] = plain(
        [], "On which ports; all of every protocol when empty.", max_length=16, json_schema_extra=SET
    )
