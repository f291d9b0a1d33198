"""A Kubernetes cluster in one process, for machines that have none: API server, controllers, scheduler and kubelets.

It is a development default. Where it differs from a real cluster it refuses rather than pretends.
"""
