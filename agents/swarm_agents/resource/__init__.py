"""The resource agent of a node: its hub to other nodes and to clients outside, its sensors, its REST interface."""
