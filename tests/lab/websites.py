"""An nginx of many ports, most with certificates, good ones and bad ones."""

import enum
from pathlib import Path

from l4lb.lab.servers import start_nginx
from l4lb.lab.topology import Lab, Server
from tests.lab import oddities
from tests.unit.certificates import NAME, issue


class Port(enum.IntEnum):
    """Where each is, over IPv4 and IPv6: by plain HTTP, and by TLS with a certificate that is particular."""

    HTTP = 8080
    GOOD = 8443
    UNCHAINED = 8444
    EXPIRED = 8445
    NOT_YET = 8446
    SOON = 8447
    OTHER_NAME = 8448
    SELF_SIGNED = 8449
    STRANGE = 8450
    BY_NAME = 8451
    MUTUAL = 8452
    OLD = 8453


_LATE_BYTES = 15_000  # and no more than 10,000 of them in a second
_CONFIGURATION = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp;
    scgi_temp_path {folder}/temp;
    server {{
        listen {http};
        listen [::]:{http};
        location = / {{ return 200 "all is well\\n"; }}
        location = /broken {{ return 503 "sorry\\n"; }}
        location = /moved {{ return 302 /; }}
        location = /cut {{ return 444; }}
        location = /members {{ if ($http_x_member != yes) {{ return 403; }} return 204; }}
        location = /post {{ if ($request_method != POST) {{ return 405; }} return 204; }}
        location = /waiting {{ proxy_pass http://127.0.0.1:{silent}; }}
        location = /lost {{ proxy_pass http://127.0.0.1:1; }}
        location = /late {{ root {folder}; limit_rate 10k; }}
    }}
    server {{
        listen {http};
        listen [::]:{http};
        server_name inside.example.test;
        return 200 "inside\\n";
    }}
    server {{
        listen {by_name} ssl default_server;
        listen [::]:{by_name} ssl default_server;
        ssl_reject_handshake on;
    }}
{tls}}}
"""
_TLS = """\
    server {{
        listen {port} ssl;
        listen [::]:{port} ssl;
        server_name {name};
        ssl_certificate {folder}/{port}.pem;
        ssl_certificate_key {folder}/{port}.pem;
        {extra}
        return 200 "all is well\\n";
    }}
"""


def start(lab: Lab, server: Server) -> Path:
    """Starts it, and returns at once: the file with the root of its good certificates."""
    folder = lab.folder / server.name
    folder.mkdir()
    (folder / "late").write_bytes((_LATE_BYTES - 7) * b"." + b"the end")
    root, stranger = (issue(name="root", authority=True) for _ in range(2))
    between = issue(root, name="between", authority=True)
    (folder / "root.pem").write_bytes(root.pem)
    certificates = {
        Port.GOOD: issue(between, address=str(server.address)).with_key(between),
        Port.UNCHAINED: issue(between).with_key(),
        Port.EXPIRED: issue(between, begins=-30, ends=-2.5).with_key(between),
        Port.NOT_YET: issue(between, begins=3.5).with_key(between),
        Port.SOON: issue(between, ends=5.5).with_key(between),
        Port.OTHER_NAME: issue(between, "other.example.test").with_key(between),
        Port.SELF_SIGNED: issue().with_key(),
        Port.STRANGE: issue(stranger).with_key(stranger),
        Port.BY_NAME: issue(between).with_key(between),
        Port.MUTUAL: issue(between).with_key(between),
        Port.OLD: issue(between).with_key(between),
    }
    extras = {
        Port.MUTUAL: f"ssl_verify_client on; ssl_client_certificate {folder}/root.pem;",
        Port.OLD: "ssl_protocols TLSv1 TLSv1.1;",
    }
    for port, content in certificates.items():
        (folder / f"{port}.pem").write_bytes(content)
    tls = (_TLS.format(port=port, name=NAME, folder=folder, extra=extras.get(port, "")) for port in certificates)
    (folder / "nginx.conf").write_text(
        _CONFIGURATION.format(
            folder=folder, http=Port.HTTP, silent=oddities.Port.SILENT, by_name=Port.BY_NAME, tls="".join(tls)
        )
    )
    start_nginx(lab, server)
    return folder / "root.pem"
