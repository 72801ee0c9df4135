"""The app the end-to-end tests ask to behave in every way an app may: slow, late, crashing, greedy, talkative.

Environment: EXIT_AT_START=<code>, LISTEN_AFTER_S=<s>, NEVER_LISTEN=1, DIE_AFTER_S=<s>.
Paths: /?ms=N waits · /env · /headers · /gauge (in flight now and at most) · /crash?code=N · /bloat?mb=N · /stream?n=N&ms=M
/half (announces 1000 bytes, sends 10, dies) · /echo (POST) · /log?line=… · /connect?to=host:port
/fetch?url=… · everything says who answered.
"""

import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

LOCK = threading.Lock()
GAUGE = {"now": 0, "most": 0, "served": 0}
KEPT = []


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        with LOCK:
            GAUGE["now"] += 1
            GAUGE["most"] = max(GAUGE["most"], GAUGE["now"])
            GAUGE["served"] += 1
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            name = parts.path.strip("/").replace("-", "_") or "root"
            getattr(self, "on_" + name, self.on_root)(query, body)
        finally:
            with LOCK:
                GAUGE["now"] -= 1

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def answer(self, value, status=200):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def on_root(self, query, body):
        time.sleep(float(query.get("ms", 0)) / 1000)
        self.answer(
            {"revision": os.environ.get("K_REVISION"), "instance": socket.gethostname(), "version": os.environ.get("VERSION")}
        )

    def on_env(self, query, body):
        self.answer({**os.environ, "_argv": sys.argv, "_cwd": os.getcwd(), "_uid": os.getuid(), "_gid": os.getgid()})

    def on_headers(self, query, body):
        self.answer(list(self.headers.items()))

    def on_gauge(self, query, body):
        self.answer({**GAUGE, "instance": socket.gethostname()})

    def on_crash(self, query, body):
        print("crashing as asked", file=sys.stderr, flush=True)
        os._exit(int(query.get("code", 1)))

    def on_bloat(self, query, body):
        KEPT.append(bytearray(os.urandom(1) * (int(query["mb"]) * 2**20)))
        self.answer({"held_mb": sum(len(k) for k in KEPT) // 2**20})

    def on_stream(self, query, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for n in range(int(query.get("n", 3))):
            line = f"data: {n}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
            time.sleep(float(query.get("ms", 100)) / 1000)
        self.wfile.write(b"0\r\n\r\n")

    def on_half(self, query, body):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"0123456789")
        self.wfile.flush()
        os._exit(3)

    def on_echo(self, query, body):
        self.answer(body)

    def on_log(self, query, body):
        print(query["line"], flush=True)
        self.answer({"logged": query["line"]})

    def on_connect(self, query, body):
        host, _, port = query["to"].rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=float(query.get("s", 1))):
                self.answer({"connected": True})
        except OSError as error:
            self.answer({"connected": False, "error": str(error)})

    def on_fetch(self, query, body):
        headers = {name: query[name] for name in ("Metadata-Flavor", "Authorization") if name in query}
        try:
            with urlopen(Request(query["url"], headers=headers), timeout=10) as got:
                self.answer({"status": got.status, "body": got.read().decode()})
        except HTTPError as error:
            self.answer({"status": error.code, "body": error.read().decode()})
        except OSError as error:
            self.answer({"status": 0, "body": str(error)})

    def log_message(self, *args):
        pass


def main():
    print("starting", os.environ.get("K_REVISION"), flush=True)
    if "EXIT_AT_START" in os.environ:
        print("cannot go on: database is not configured", file=sys.stderr, flush=True)
        sys.exit(int(os.environ["EXIT_AT_START"]))
    if "DIE_AFTER_S" in os.environ:
        threading.Timer(float(os.environ["DIE_AFTER_S"]), lambda: os._exit(9)).start()
    if "NEVER_LISTEN" in os.environ:
        time.sleep(3600)
    time.sleep(float(os.environ.get("LISTEN_AFTER_S", "0")))
    ThreadingHTTPServer.request_queue_size = 512
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), App).serve_forever()


main()
