"""Port numbers."""

MAX_PORT = 65_535
