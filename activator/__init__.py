"""Admission: holds a request until an instance of its revision has room, never giving one more than it may have.

A library of the ingress. `throttler` (of `breaker`, `balance`, `concurrency`) is the pure part, one revision at a time;
`admitter` carries out what it decides: wakes, drained messages, reports, the passing of time. Over several workers `loans` (of
`ownership`, `borrowing`, `orphans`, `shares`) lends slots between them, and `peers` carries what they say (`wire`).
"""
