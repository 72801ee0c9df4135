"""Images: from a registry or an archive into containerd, unpacked and ready to start, and away again when nobody uses them.

`facade.ImageStore` is what the agent holds. `manifest`, `gc` and `challenge` are pure; `registry`, `ingest`, `unpack` are shells.
"""
