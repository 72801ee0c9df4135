"""What every process of Ebb needs and nobody's domain.

Settings, JSON logs, the clock, metrics and health endpoints, signals and drain, supervision of children.
It imports nothing else of Ebb.
"""
