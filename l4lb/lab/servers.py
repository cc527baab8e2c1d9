"""What the lab's backends serve: nginx over TCP and an echo over UDP, each answering with the backend's name."""

import sys
import time
from pathlib import Path

from l4lb.errors import L4lbError
from l4lb.lab.topology import Lab, Server

HTTP_PORT = 8080
UDP_PORT = 5353
BIG_FILE_BYTES = 100 * 1000 * 1000

_NGINX = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp;
    scgi_temp_path {folder}/temp;
    sendfile on;
    server {{
        listen {port} backlog=4096 reuseport;
        listen [::]:{port} backlog=4096 reuseport ipv6only=on;
        location / {{ return 200 "{name}\\n"; }}
        location /big {{ root {folder}; }}
        location /upload {{ root {folder}; dav_methods PUT; client_max_body_size 0; }}
    }}
}}
"""


def start_servers(lab: Lab, http_port: int = HTTP_PORT, udp_port: int = UDP_PORT) -> None:
    """Starts both servers on every backend, and returns when they listen."""
    for server in lab.servers:
        folder = lab.folder / server.name
        folder.mkdir()
        with (folder / "big").open("wb") as big:
            big.truncate(BIG_FILE_BYTES)
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=http_port, name=server.name))
        start_nginx(lab, server)
        lab.start(server.namespace, sys.executable, "-m", "l4lb.lab.udp_echo", str(udp_port), server.name)
    for server in lab.servers:
        _wait_for(server, f"tcp and udp on {server.name}", http_port, udp_port)


def start_nginx(lab: Lab, server: Server) -> None:
    """Starts a server's nginx, with the configuration that it has; returns at once."""
    folder = lab.folder / server.name
    lab.start(server.namespace, "nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"))


def _wait_for(server: Server, what: str, http_port: int, udp_port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        listening = server.namespace.run("ss", "-Hlntu").stdout
        if all(f":{port} " in listening for port in (http_port, udp_port)):
            return
        time.sleep(0.02)
    raise L4lbError(f"{what} did not begin to listen", f"see {Path('error.log')} in the lab's folder")
