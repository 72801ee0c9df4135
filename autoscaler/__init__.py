"""How many instances of each revision, and on which node.

Hears samples and wakes, decides by Knative's rules (`policy`), places (`placement`) and writes `scale/` and `assignments/`:
nothing else. `python -m autoscaler` runs it; everything but `loop`, `fleet`'s shell and `__main__` is pure and takes `now`.
"""
