"""The node agent: makes this machine's assignments true, as containers.

It watches `assignments/<node>/`, plans the next actions of each instance (`plan`, pure), performs them (`executor`) on containerd,
the network and the probes, and reports every change of phase on NATS and in etcd under the node's lease. Containers outlive it.
"""
