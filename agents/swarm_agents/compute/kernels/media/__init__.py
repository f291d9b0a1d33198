"""Streams and media: filter banks over signals, sliding windows over sensor data, the DCT of image blocks."""

from swarm_agents.compute.kernels.media import dct, fir, window

__all__ = ["dct", "fir", "window"]
