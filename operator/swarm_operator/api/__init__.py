"""The API that users see: `agentswarm.dev/v1alpha1`, kind `Swarm`."""

from swarm_operator.api.v1alpha1 import API_VERSION, GROUP, KIND, PLURAL, VERSION, SwarmSpec

__all__ = ["API_VERSION", "GROUP", "KIND", "PLURAL", "VERSION", "SwarmSpec"]
