"""An app that is the judge of admission: it counts what is inside it at any moment, and keeps a record of every request.

GET /work?id=ID&ms=N answers after N ms, whether or not who asked is still there, as many an app would. GET /record is the record:
{"most": the most that were ever inside, "ran": {ID: how often}, "order": [ID, …] as they came}. Each port it is given is an instance, with
a record of its own. Without any library: it also runs inside a container.
"""

import asyncio
import json
import os
import sys
from urllib.parse import parse_qs, urlsplit


class Record:
    def __init__(self):
        self.now = self.most = 0
        self.ran = {}
        self.order = []


class Oracle(asyncio.Protocol):
    def __init__(self, record):
        self.record = record
        self.left = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.left += data
        while b"\r\n\r\n" in self.left:
            head, _, self.left = self.left.partition(b"\r\n\r\n")
            asyncio.get_running_loop().create_task(self.answer(head.split(b" ", 2)[1].decode()))

    async def answer(self, target):
        record, parts = self.record, urlsplit(target)
        if parts.path == "/record":
            self.say(json.dumps({"most": record.most, "ran": record.ran, "order": record.order}))
            self.transport.close()
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/work":
            record.ran[query["id"]] = record.ran.get(query["id"], 0) + 1
            record.order.append(query["id"])
            record.now += 1
            record.most = max(record.most, record.now)
            await asyncio.sleep(float(query["ms"]) / 1000)
            record.now -= 1  # Before it answers: who hears the answer may send the next.
        self.say("ok")

    def say(self, body):
        data = body.encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))


async def serve(port):
    record = Record()
    return await asyncio.get_running_loop().create_server(lambda: Oracle(record), "0.0.0.0", port, backlog=4096)


async def main(ports):
    servers = [await serve(port) for port in ports]
    print("listening", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main([int(os.environ["PORT"])] if os.environ.get("PORT") else [int(port) for port in sys.argv[1:]]))
