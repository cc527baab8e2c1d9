"""Labs: a client, a gateway and backends in network namespaces, with real servers and real traffic.

The demo, the lab tests and the benchmarks are made of these. All of it needs root.
"""
