"""A thin shell around containerd's gRPC services: one channel, our namespace on every call, a deadline on every call.

`client.Containerd` is what callers hold, `errors` is what it raises; generated messages come from `nodeagent.pb`.
"""
