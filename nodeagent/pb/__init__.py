"""Generated messages and stubs of containerd's published gRPC interface. Written by `regenerate`, never by hand."""
