"""`python -m swarm_agents.runtime` is `swarm-agent`."""

import sys

from swarm_agents.runtime.main import main

sys.exit(main())
