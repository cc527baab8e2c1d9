"""From a configuration to what the maps should hold: pure functions, no kernel, no clock.

* :mod:`~l4lb.plan.limits`: how large the maps are
* :mod:`~l4lb.plan.records`: what a map holds, as values
* :mod:`~l4lb.plan.index`: the hash table from endpoints to VIPs and backends
* :mod:`~l4lb.plan.tables`: the VIPs' tables and their places
* :mod:`~l4lb.plan.planner`: the operations that lead from what is to what should be
"""
