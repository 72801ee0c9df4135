"""What may run: the Knative Serving API, and the controller that makes it true.

A template becomes revisions, an image tag a digest, traffic the routes of the front door, and all that others report a condition
in words. `plan` is the pure middle; `api/` is what clients speak to, `loop` and `__main__` are the shells.
"""
