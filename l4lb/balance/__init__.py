"""Who gets a flow: pure functions of a seed and a set of backends, the same on every gateway."""
