"""What the benchmark's clients print is read right; what is not their output is not taken for a result."""

import pytest

from deploy.bench_warm_kinds import parse_h2load, parse_wrk

WRK = """Running 2s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  650.00us
     75%    1.02ms
     90%    1.50ms
     99%    1.91ms
  59474 requests in 2.00s, 9.81MB read
  Non-2xx or 3xx responses: 3
  Socket errors: connect 0, read 1, write 0, timeout 2
Requests/sec:  29737.00
"""
H2LOAD = "requests: 4 total, 4 started, 3 done, 3 succeeded, 0 failed, 1 errored, 0 timeout\n"


def test_wrks_latencies_are_milliseconds_and_its_errors_add_up() -> None:
    run = parse_wrk(WRK)
    assert (run.requests, run.rps, run.p50_ms, run.p99_ms, run.errors) == (59474, 29737.0, 0.65, 1.91, 6)


def test_h2loads_log_gives_percentiles_and_what_was_not_200_is_an_error() -> None:
    run = parse_h2load(H2LOAD, "1\t200\t1000\n2\t200\t2000\n3\t503\t3000\n", 1)
    assert (run.requests, run.rps, run.p50_ms, run.errors) == (3, 3.0, 2.0, 2)


@pytest.mark.parametrize("parse", [parse_wrk, lambda out: parse_h2load(out, "", 1)])
def test_other_output_is_refused(parse: object) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match="output"):
        parse("unable to connect")
