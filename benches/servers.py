"""The peers in Python, standard library only: `servers.py threading|pool echo PORT WORKERS`.

threading: socketserver.ThreadingTCPServer, a thread per connection.
pool: concurrent.futures.ThreadPoolExecutor, a worker per connection until it closes.
"""

import socket
import socketserver
import sys
from concurrent.futures import ThreadPoolExecutor


def echo(connection):
    with connection:
        try:
            while data := connection.recv(4096):
                connection.sendall(data)
        except OSError:
            pass  # the client is gone


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        echo(self.request)


class Threading(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 1024


def pool(port, workers):
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    with ThreadPoolExecutor(workers) as executor:
        while True:
            executor.submit(echo, listener.accept()[0])


if __name__ == "__main__":
    kind, _service, port, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if kind == "pool":
        pool(port, workers)
    else:
        Threading(("127.0.0.1", port), Handler).serve_forever()
