"""A gRPC server for the tests, by gRPC's own library: ``health_server.py ADDRESS PORT TLS-PORT BARE-PORT CERTIFICATE``.

It has the health service on the first two ports, and none on the third. Of the services, "sick" is not serving.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

address, plain, secure, bare, certificate = sys.argv[1:]
pem = Path(certificate).read_bytes()  # the key as well
service = health.HealthServicer()
service.set("", HealthCheckResponse.SERVING)
service.set("sick", HealthCheckResponse.NOT_SERVING)
with_health = grpc.server(ThreadPoolExecutor(2))
health_pb2_grpc.add_HealthServicer_to_server(service, with_health)
with_health.add_insecure_port(f"{address}:{plain}")
with_health.add_secure_port(f"{address}:{secure}", grpc.ssl_server_credentials([(pem, pem)]))
without = grpc.server(ThreadPoolExecutor(1))
without.add_insecure_port(f"{address}:{bare}")
with_health.start()
without.start()
print("serving", flush=True)
with_health.wait_for_termination()
