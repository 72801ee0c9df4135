"""A small web app as people write them."""

import os

from flask import Flask, request

app = Flask(__name__)


@app.get("/")
def hello():
    return {"hello": request.args.get("name", "world"), "revision": os.environ.get("K_REVISION")}
