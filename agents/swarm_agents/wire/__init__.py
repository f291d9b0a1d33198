"""The wire between nodes, and from clients outside a node: ZeroMQ over TCP, encrypted and authenticated by CURVE.

`schema` says what is said, `frames` turns it into bytes, `keys` and `zap` say who may speak, `sockets` opens the
sockets with the options that belong together, and `loop` and `monitor` tie them to an event loop or a thread.
"""
