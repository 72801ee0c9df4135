"""The `ebb` command: a client of the API, whose words and flags follow `gcloud run` and `kn`.

It imports nothing of the engine. `up`, `down`, `roll` and `status` hand over to `python -m deploy.allinone`.
"""
