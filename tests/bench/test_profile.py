from __future__ import annotations

from bench.profile import REST, shares


def test_each_look_counts_for_the_innermost_step() -> None:
    found = shares(
        [
            "main (cli.py:1);Batcher._run (batcher.py:9);Scorer._run (scorer.py:4) 6",
            "main (cli.py:1);ScoreRoute.__call__ (routes.py:9);PlainReader.score (compiled.py:4) 2",
            "main (cli.py:1);RankRoute.answer (routes.py:9) 1",
            "main (cli.py:1);Protocol.data_received (protocol.py:9) 1",
        ]
    )
    assert found == {
        "bytes -> indices": 0.2,
        "run of the graph": 0.6,
        "joining": 0.0,
        "answer": 0.1,
        REST: 0.1,
    }
