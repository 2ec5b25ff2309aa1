"""Past one machine: the same work on Ray."""
