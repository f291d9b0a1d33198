"""The embedded cluster's API server: the part of the Kubernetes API that a Swarm and its tools need, true to a real
one."""
