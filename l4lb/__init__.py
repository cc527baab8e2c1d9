"""l4lb: a Layer 4 TCP/UDP load balancer for Linux gateways."""

from importlib.metadata import version

__version__ = version("l4lb")
