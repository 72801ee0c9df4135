"""An app that is the judge of admission: it counts what is inside it at any moment, and keeps a record of every request.

GET /work?id=ID&ms=N answers after N ms, whether or not who asked is still there, as many an app would. GET /record is the record:
{"most": the most that were ever inside, "ran": {ID: how often}}. Without any library: it also runs inside a container.
"""

import asyncio
import json
import os
import sys
from urllib.parse import parse_qs, urlsplit

INSIDE = {"now": 0, "most": 0}
RAN = {}


class Oracle(asyncio.Protocol):
    def __init__(self):
        self.left = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.left += data
        while b"\r\n\r\n" in self.left:
            head, _, self.left = self.left.partition(b"\r\n\r\n")
            asyncio.get_running_loop().create_task(self.answer(head.split(b" ", 2)[1].decode()))

    async def answer(self, target):
        parts = urlsplit(target)
        if parts.path == "/record":
            self.say(json.dumps({"most": INSIDE["most"], "ran": RAN}))
            self.transport.close()
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/work":
            RAN[query["id"]] = RAN.get(query["id"], 0) + 1
            INSIDE["now"] += 1
            INSIDE["most"] = max(INSIDE["most"], INSIDE["now"])
            await asyncio.sleep(float(query["ms"]) / 1000)
            INSIDE["now"] -= 1  # Before it answers: who hears the answer may send the next.
        self.say("ok")

    def say(self, body):
        data = body.encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))


async def main(port):
    server = await asyncio.get_running_loop().create_server(Oracle, "0.0.0.0", port, backlog=4096)
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main(int(os.environ.get("PORT") or sys.argv[1])))
