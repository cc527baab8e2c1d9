"""Servers that say something else, for tests: ``babble.py ADDRESS`` reads pieces in hexadecimal, a line each.

It has a port for each, and prints the ports. There it takes connections, says the piece at once and no more, and
listens until the other side ends.
"""

import contextlib
import socket
import socketserver
import sys
import threading


def serve(address: str, piece: bytes) -> int:
    class Babble(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the other side has had enough
                self.request.sendall(piece)
                self.request.shutdown(socket.SHUT_WR)
                while self.request.recv(4096):
                    pass

    server = socketserver.ThreadingTCPServer((address, 0), Babble)
    threading.Thread(target=server.serve_forever).start()
    return int(server.server_address[1])


print(*(serve(sys.argv[1], bytes.fromhex(line)) for line in sys.stdin), flush=True)
