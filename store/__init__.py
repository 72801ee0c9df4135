"""What the parts of Ebb say to each other, and where it is kept.

The typed model, the lifecycle of an instance, the key map and the messages; ports to etcd and NATS with their shells and their
in-memory twins; watches, leases and elections. It imports only `process`.
"""
