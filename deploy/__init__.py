"""The all-in-one engine (`ebb up`, `down`, `status`), the demo and the benchmarks: how the programs come to run on a machine."""
