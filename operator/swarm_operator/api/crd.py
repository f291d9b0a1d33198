"""Writes the CRD, `deploy/crds/swarms.agentswarm.dev.yaml`. Run as `python -m swarm_operator.api.crd [FILE]`.

The file is committed; a test compares it with what this module makes, so that models and CRD can't drift.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from swarm_operator.api.fields import Model, plain
from swarm_operator.api.schema import structural
from swarm_operator.api.status import SwarmStatus
from swarm_operator.api.v1alpha1 import GROUP, KIND, OBJECT_RULES, PLURAL, VERSION, SwarmSpec

__all__ = ["CRD_FILE", "crd", "crd_yaml", "main"]

CRD_FILE = Path(__file__).parents[3] / "deploy" / "crds" / f"{PLURAL}.{GROUP}.yaml"

#: The Swarm's name begins the names of pods and Services; 40 leaves room for role, ordinal and incarnation in 63.
MAX_NAME = 40


class _Swarm(Model):
    """A swarm of compute agents and resource agents."""

    spec: SwarmSpec = plain(SwarmSpec(), "What the swarm should be.")
    status: SwarmStatus | None = plain(None, "What the operator has observed.")


def _columns() -> list[dict[str, Any]]:
    def column(name: str, path: str, text: str, kind: str = "integer", wide: bool = False) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path, "description": text}
        return entry | ({"priority": 1} if wide else {})

    return [
        column("Desired", ".spec.compute.replicas", "Compute agents wanted."),
        column("Ready", ".status.compute.ready", "Compute agents that are ready."),
        column("Standby", ".status.standby.ready", "Standby agents that are ready."),
        column("Status", '.status.conditions[?(@.type=="Ready")].reason', "How the swarm is.", "string"),
        column("Age", ".metadata.creationTimestamp", "Since when it exists.", "date"),
        column("Resource", ".status.resource.ready", "Resource agents that are ready.", wide=True),
        column("Updated", ".status.compute.updated", "Compute agents of the newest revision.", wide=True),
        column("Revision", ".status.revision", "Revision of the rolling fields.", "string", wide=True),
        column("Settings", ".status.observedSettings", "Settings that every agent acknowledged.", "string", wide=True),
        column("Image", ".spec.image", "The agents' image.", "string", wide=True),
    ]


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition as plain data."""
    root = structural(_Swarm, OBJECT_RULES)
    string = {"type": "string"}
    schema: dict[str, Any] = {
        "description": "A swarm of compute agents, and of resource agents that connect their nodes.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {**string, "description": "Version of the API that this object is written in."},
            "kind": {**string, "description": KIND},
            "metadata": {"type": "object"},
            "spec": root["properties"]["spec"],
            "status": root["properties"]["status"],
        },
        # `metadata` may be restricted in name only, and only here at the root.
        "x-kubernetes-validations": [
            {
                "rule": f"size(self.metadata.name) <= {MAX_NAME} && "
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "message": f"metadata.name must be a DNS label of at most {MAX_NAME} characters that begins with a "
                "letter: it begins the names of the swarm's pods and Services",
            }
        ],
    }
    schema["properties"]["spec"].pop("default", None)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "agentswarm", "app.kubernetes.io/part-of": "agentswarm"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": "swarm",
                "shortNames": ["sw"],
                "categories": ["all", "agentswarm"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": _columns(),
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.compute.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def crd_yaml() -> str:
    """The file's text."""
    head = "# Generated from the models by `make generate` (python -m swarm_operator.api.crd); do not edit.\n"

    class Dumper(yaml.SafeDumper):
        """Writes every occurrence in full: anchors are lost on kubectl's way."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return head + yaml.dump(crd(), Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)


def main(arguments: list[str] | None = None) -> int:
    """Writes the file named, or the committed one."""
    arguments = sys.argv[1:] if arguments is None else arguments
    path = Path(arguments[0]) if arguments else CRD_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(crd_yaml(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
