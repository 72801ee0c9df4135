"""Messages and stubs of etcd's gRPC interface, generated; see README beside this file."""
