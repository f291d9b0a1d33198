"""The nodes: kubelets that run pods as processes, the scheduler that fills them, and what cleans up."""
