"""The HTTP API: Knative Serving v1 as its clients speak it, and Ebb's own under `/apis/ebb.dev/v1`.

`app` puts it together; `resources` does the work; `watching` streams; `problems` are the errors clients read.
"""
