"""The autoscaler's metrics."""

from process import metrics

WAKES = metrics.counter("autoscaler_wakes_total", "Wakes heard")
DECISIONS = metrics.counter("autoscaler_decisions_total", "Decisions that changed something", "reason")
COMMITS = metrics.counter("autoscaler_commits_total", "Transactions by outcome", "outcome")
REFUSALS = metrics.counter("autoscaler_refusals_total", "Refusals published", "kind")
FAILURES = metrics.counter("autoscaler_failed_starts_total", "Instances that failed to start or died young")
ERRORS = metrics.counter("autoscaler_errors_total", "Revisions that could not be decided on: a fault of Ebb's own")
DECIDE = metrics.histogram("autoscaler_decide_seconds", "From a wake heard to its transaction sent")
COMMIT = metrics.histogram("autoscaler_commit_seconds", "A transaction's time in etcd")
TICK = metrics.histogram("autoscaler_tick_seconds", "One tick over all active revisions")
ACTIVE = metrics.gauge("autoscaler_active_revisions", "Revisions with load, instances or something to do")
