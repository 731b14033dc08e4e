# SPDX-License-Identifier: MIT
"""A small web server on this machine, so that the page examples need no network.

It serves /posts/1 to /posts/100, /posts?userId=1 to 10 (the ten posts of a user) and /users/1 to
/users/10 as JSON, each answer after a delay; anything else is a 404.  It runs as a program of its
own: the example has no thread but its own when it starts worker processes.
"""
import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse

USERS = [
    "Ada Lovelace", "Alan Turing", "Barbara Liskov", "Dennis Ritchie", "Donald Knuth",
    "Edsger Dijkstra", "Grace Hopper", "Katherine Johnson", "Ken Thompson", "Tony Hoare",
]


def post(number):
    return {"userId": (number - 1) // 10 + 1, "id": number, "title": f"Post number {number}"}


def page(path, query):
    """What is found under an address, or None."""
    folder, _, name = path.strip("/").partition("/")
    number = int(name or query.get("userId", ["0"])[0])
    if folder == "posts" and not name and 1 <= number <= 10:
        return [post(10 * (number - 1) + i) for i in range(1, 11)]
    if folder == "posts" and 1 <= number <= 100:
        return post(number)
    if folder == "users" and 1 <= number <= 10:
        return {"id": number, "name": USERS[number - 1]}
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    delay = 0.0

    def do_GET(self):
        time.sleep(self.delay)
        url = urllib.parse.urlsplit(self.path)
        content = page(url.path, urllib.parse.parse_qs(url.query))
        body = json.dumps({} if content is None else content).encode()
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing: the output belongs to the example."""


def serve(delay):
    """Print the address, and serve until standard input ends: whoever started this is gone then."""
    Handler.delay = delay
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
        server.shutdown()


@contextlib.contextmanager
def running(delay=0.1):
    """The address of a server that runs as long as the block does."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    with subprocess.Popen([sys.executable, __file__, str(delay)], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
