"""Jobs on disk: what a server must know of its jobs after a crash or a restart."""
