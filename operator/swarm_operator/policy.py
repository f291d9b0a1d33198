"""The operator's policy: what owners of Swarms may ask for, beyond what the API lets them ask at all.

One YAML file, `swarm-operator --policy FILE`, of whoever runs the operator (`policy_file` reads it). Swarms that ask
for more are refused by the condition Accepted (see `overrides`). A key that is left out restricts nothing, but for what
no owner of a Swarm may have by default: devices and networks of the node by way of annotations and environment
variables that container runtimes read, and directories of the node other than its tmpfs. An empty list allows nothing
of its kind.

In patterns `*` stands for any characters, also none; all else is itself.

Rejected: an object of the API for it (who may write Swarms' policies would be one more right to keep apart, and an
operator could not start without it); ValidatingAdmissionPolicies or Kyverno alone, which see pods only once they are
made: a Swarm would be half made. They go well with this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Final, Literal

from pydantic import Field

from swarm_operator.api.fields import Model, plain

__all__ = ["OPEN", "Policy", "allowed"]

_Pattern = Annotated[str, Field(min_length=1, max_length=512)]
_Patterns = list[_Pattern] | None


class Policy(Model):
    """What owners of Swarms may ask for."""

    images: _Patterns = plain(
        None, "Images of agents, such as registry.example/risk/*. No volume may then be mounted over their code."
    )
    image_pull_policies: list[Literal["Always", "IfNotPresent", "Never"]] | None = plain(
        None, "When images are pulled. Always keeps an image on a node from those who can't pull it."
    )
    service_accounts: _Patterns = plain(None, "Names of the agents' ServiceAccount, which is the Swarm's own name.")
    min_user_id: int = plain(1, "The lowest user ID of agents.", ge=1, le=2147483647)
    min_group_id: int = plain(1, "The lowest group ID of agents.", ge=1, le=2147483647)
    shared_memory: list[Literal["HostPath", "Memory"]] = plain(
        ["HostPath", "Memory"], "Media of shared memory. HostPath is the only access to the node that there is."
    )
    shared_memory_paths: list[_Pattern] = plain(
        ["/dev/shm"],
        "Directories of the node for medium HostPath. Below /dev/shm only those that root has made before a pod could: "
        "whoever can write there can put a link in their place.",
    )
    volumes: list[Literal["configMap", "secret", "persistentVolumeClaim", "emptyDir"]] | None = plain(
        None, "Kinds of further volumes, and of spec.state."
    )
    mount_paths: _Patterns = plain(None, "Where further volumes may be mounted, such as /data/*.")
    config_maps: _Patterns = plain(None, "ConfigMaps that volumes and env may refer to.")
    secrets: _Patterns = plain(None, "Secrets that volumes, env and imagePullSecrets may refer to.")
    claims: _Patterns = plain(None, "PersistentVolumeClaims that volumes and spec.state may refer to.")
    env: _Patterns = plain(None, "Names of further environment variables.")
    labels: _Patterns = plain(None, "Keys of further labels.")
    annotations: _Patterns = plain(None, "Keys of further annotations.")
    runtime_classes: _Patterns = plain(None, "RuntimeClasses that may be named.")
    runtime_class_required: bool = plain(False, "Whether one must be named.")
    priority_classes: _Patterns = plain(None, "PriorityClasses that may be named.")
    schedulers: _Patterns = plain(None, "Schedulers that may be named.")
    devices: _Patterns = plain(None, "Resources of device plugins (compute.gpus.resource), such as nvidia.com/*.")
    tolerations: _Patterns = plain(None, "Keys of taints that may be tolerated; * allows the toleration of all.")
    network_policy: Literal["Optional", "Required"] = plain("Optional", "Whether Swarms must have a NetworkPolicy.")
    egress: bool = plain(True, "Whether Swarms may name further places that their agents reach (security.egress).")


#: Restricts nothing but what nobody may by default.
OPEN: Final = Policy()


@lru_cache(maxsize=4096)
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))))


def allowed(value: str, patterns: Iterable[str] | None) -> bool:
    """Whether one of the patterns is for the whole of the value; None: there are no patterns, anything goes."""
    return patterns is None or any(_expression(pattern).fullmatch(value) for pattern in patterns)
