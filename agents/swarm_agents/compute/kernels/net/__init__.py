"""Networks: checksums and headers of many packets in one buffer.

Packets lie one behind the other in a byte array: packet i is `packets[offsets[i]:offsets[i + 1]]`, as Arrow lays out
binary columns. Offsets come from outside, so they are checked before compiled code goes by them; a packet that claims
more than it holds is flagged, and nothing outside it is read.
"""

from swarm_agents.compute.kernels.net import checksum, headers

__all__ = ["checksum", "headers"]
