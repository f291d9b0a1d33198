"""Machine learning: inference of dense layers, and steps of training whose parts add up.

Conventions of all kernels here: a row is a sample. A step takes a shard of the data and the model as it is, and returns
sums over the shard, never means: the sums of any shards added up are the sums of their union, so a training loop is
`map` over the shards, an addition, and one small update (`deploy/examples/learning/train.py` is one).
"""

from swarm_agents.compute.kernels.learning import dense, dense_gpu, kmeans, logistic

__all__ = ["dense", "dense_gpu", "kmeans", "logistic"]
