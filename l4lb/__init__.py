"""l4lb: a Layer 4 TCP/UDP load balancer for Linux gateways."""

__version__ = "0.1.0"
