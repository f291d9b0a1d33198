"""The embedded cluster's API server: the part of the Kubernetes API that a Swarm and its tools need, true to a real
one.

`app` serves it over TLS on a loopback address, `client` in process; both call `core.Api`, whose writing half is
`writes`. How true it is, `tests/integration/local_api` holds: recorded exchanges of stock clients with a real server
are replayed against it. Where it does less it refuses, and says so:

- one user, who may do everything: roles and bindings are accepted with a warning, service accounts' tokens open every
  door;
- Pod Security levels by the labels of namespaces, judged by their newest version (see `pod_security`);
- no kinds that nothing here acts on (Deployments, Jobs, volumes, networks, limit ranges, webhooks): listed, and
  not created; quotas count pods, their requests and limits (see `quota`);
- no exec, attach, port-forward or proxy: pods are processes of this machine, and their addresses are this machine's;
- no protobuf in answers, and in requests only the few kinds that kubectl sends so; every such client reads JSON;
- `kubectl explain` of built-in kinds names fields without explaining them;
- conversion of custom resources is `None` only, and their rules are type-checked and costed less strictly (see
  `cel`).
"""
