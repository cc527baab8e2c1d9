"""A fuzzer: packets through the real program and through the reference of it, which have to agree on every byte.

``scripts/fuzz`` runs it for long, :mod:`tests.packet.test_fuzz` for a moment.
"""
