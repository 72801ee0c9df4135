"""The front door: every request to a service comes in here and goes out to an instance.

It knows routes and instances from etcd and the bus, keeps all of it in memory, and goes on serving when both are away.
One parser, strict and bounded; what goes to an instance is serialised anew; admission is the activator's.
"""
