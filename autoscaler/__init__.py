"""How many instances of each revision, and on which node.

Hears samples and wakes, decides by Knative's rules (`policy`), places (`placement`) and writes `scale/` and `assignments/`:
nothing else. `python -m autoscaler` runs it. Shells are `loop`, `hear`, `act`, `world` and `__main__`; the rest is pure.
"""
