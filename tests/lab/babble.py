"""Servers that say something else, for tests: ``babble.py ADDRESS HEX...`` has a port for each, and prints the ports.

Each takes connections, says its piece at once and no more, and listens until the other side ends.
"""

import socketserver
import sys
import threading


def serve(address: str, piece: bytes) -> int:
    class Babble(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                self.request.sendall(piece)
                self.request.shutdown(1)  # SHUT_WR
                while self.request.recv(4096):
                    pass
            except OSError:
                pass  # the other side has had enough

    server = socketserver.ThreadingTCPServer((address, 0), Babble)
    threading.Thread(target=server.serve_forever).start()
    return int(server.server_address[1])


print(*(serve(sys.argv[1], bytes.fromhex(piece)) for piece in sys.argv[2:]), flush=True)
