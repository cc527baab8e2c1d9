"""Looking after backends over the network: a module per kind of check, each with a coroutine ``probe``.

It returns when the backend is well, and raises :class:`~l4lb.probes.target.Unwell` or an error of the system when it is
not. What it returns is an agent's advice, or None.
"""
