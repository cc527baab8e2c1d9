"""Measurements, each a ratio or difference taken side by side in one run: ``scripts/bench``."""
