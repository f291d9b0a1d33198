"""The kubelets: one for each simulated node, each running the pods bound to its node as processes of this machine."""
