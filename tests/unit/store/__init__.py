"""Unit tests of store/: pure, no sockets, virtual time."""
