"""`swarm demo`: a portfolio's risk on a local swarm, with an agent killed meanwhile, and every figure checked."""
