"""The subcommands of `swarm`, one module each: a module is imported only when its command is run."""
