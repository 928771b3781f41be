from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.errors import LARGEST_BODY_BYTES, LONGEST_NAME
from service.scorer import Scorer
from service.waiting import Client

CONTEXT: dict[str, Any] = {"age": 31, "income": 2500.5, "city": "city1", "history": ["h1", "h2"]}
ITEMS: list[dict[str, Any]] = [
    {"price": 9.5, "size": 2, "item": 3, "shop": "shop1", "tags": ["t1"]},
    {"price": None, "size": 1e308, "item": "19", "shop": "new", "tags": []},
    {"item": 7.0, "shop": True},
]
RANK: dict[str, Any] = {
    "context": CONTEXT,
    "candidates": [{"id": f"i{place}", "features": item} for place, item in enumerate(ITEMS)],
}


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = {name for row in rows for name in row}
    return {name: [row.get(name) for row in rows] for name in names}


def scores(client: TestClient, rows: list[dict[str, Any]]) -> list[float]:
    answer = client.post("/score", json={"instances": rows})
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["scores"]
    return found


def test_score_answers_with_model_version_and_probabilities(client: TestClient) -> None:
    answer = client.post("/score", json={"instances": [CONTEXT | ITEMS[0]]}).json()
    assert (answer["model"], answer["version"]) == ("tiny", 3)
    assert 0 < answer["scores"][0] < 1
    assert "warnings" not in answer


def test_columns_score_as_rows_do(client: TestClient) -> None:
    rows = [CONTEXT | item for item in ITEMS]
    answer = client.post("/score", json={"columns": columns(rows)}).json()
    assert answer["scores"] == scores(client, rows)


def test_a_row_scores_the_same_in_any_company(client: TestClient) -> None:
    rows = [CONTEXT | item for item in ITEMS]
    alone = [scores(client, [row])[0] for row in rows]
    np.testing.assert_allclose(scores(client, rows * 20), alone * 20, atol=1e-6)


def test_rank_equals_score_on_the_joined_rows_sorted(client: TestClient) -> None:
    items = client.post("/rank", json=RANK).json()["items"]
    joined = scores(client, [CONTEXT | item for item in ITEMS])
    expected = sorted(range(3), key=lambda place: -joined[place])
    assert [item["id"] for item in items] == [f"i{place}" for place in expected]
    assert [item["rank"] for item in items] == [1, 2, 3]
    np.testing.assert_allclose(
        [i["score"] for i in items], [joined[p] for p in expected], atol=1e-5
    )


def test_candidate_columns_rank_as_rows_do(client: TestClient) -> None:
    body = RANK | {"candidates": {"id": ["i0", "i1", "i2"], "features": columns(ITEMS)}}
    assert client.post("/rank", json=body).json() == client.post("/rank", json=RANK).json()


def test_equal_candidates_keep_the_input_order_and_duplicates_are_warned_of(
    client: TestClient,
) -> None:
    body = {"candidates": [{"id": 1, "features": ITEMS[0]}] * 2 + [{"id": 2, "features": ITEMS[0]}]}
    answer = client.post("/rank", json=body).json()
    assert [item["id"] for item in answer["items"]] == [1, 1, 2]
    assert answer["warnings"] == [{"field": "id", "code": "duplicate_id", "count": 1}]


@pytest.mark.parametrize(("top_k", "returned"), [(1, 1), (2, 2), (3, 3), (50, 3)])
def test_top_k_returns_the_best(client: TestClient, top_k: int, returned: int) -> None:
    whole = client.post("/rank", json=RANK).json()["items"]
    assert client.post("/rank", json=RANK | {"top_k": top_k}).json()["items"] == whole[:returned]


def test_win_probabilities_follow_the_order_of_the_items(client: TestClient) -> None:
    answer = client.post("/rank", json=RANK | {"pairwise": True, "top_k": 2}).json()
    wins = np.array(answer["win_probability"])
    assert wins.shape == (2, 2)
    np.testing.assert_allclose(wins + wins.T, 1)
    assert wins[0, 1] >= 0.5


def test_nothing_to_score_is_an_answer(client: TestClient) -> None:
    assert client.post("/score", json={"instances": []}).json()["scores"] == []
    assert client.post("/rank", json={"candidates": []}).json()["items"] == []
    body = {"candidates": {"id": [], "features": {}}, "pairwise": True}
    assert client.post("/rank", json=body).json()["items"] == []


def test_absent_null_and_empty_context_are_all_missing(client: TestClient) -> None:
    rest = {"candidates": RANK["candidates"]}
    contexts: list[dict[str, Any]] = [{}, {"context": None}, {"context": {}}]
    answers = [client.post("/rank", json=rest | context).json() for context in contexts]
    assert answers[0] == answers[1] == answers[2]


def test_unknown_names_are_ignored_and_counted_from_the_first_request_on(
    client: TestClient,
) -> None:
    rows = [CONTEXT | {"brand new": [1, {"a": None}]}, CONTEXT, CONTEXT | {"brand new": None}]
    expected = scores(client, [CONTEXT] * 3)
    for _ in range(3):
        answer = client.post("/score", json={"instances": rows}).json()
        assert answer["warnings"] == [{"field": "brand new", "code": "unknown_field", "count": 2}]
        assert answer["scores"] == expected


def test_more_unknown_names_than_are_learned_are_still_counted(client: TestClient) -> None:
    rows = [{f"new{n}": n for n in range(100)}]
    for _ in range(2):
        warnings = client.post("/score", json={"instances": rows}).json()["warnings"]
        assert len(warnings) == 20
        assert {warning["count"] for warning in warnings} == {1}


def test_overlong_lists_are_cut_and_counted(client: TestClient) -> None:
    rows = [{"history": ["h1", None, "h2", "h3", "h4"]}, {"history": ["h1", "h2", "h3"]}]
    answer = client.post("/score", json={"instances": rows}).json()
    assert answer["warnings"] == [{"field": "history", "code": "truncated", "count": 1}]
    assert answer["scores"][0] == pytest.approx(answer["scores"][1], abs=1e-6)


def test_version_in_the_query_picks_a_loaded_version(client: TestClient) -> None:
    assert client.post("/score?version=3", json={"instances": []}).status_code == 200
    for wrong in ("4", "x", "", "-1"):
        answer = client.post(f"/score?version={wrong}", json={"instances": []})
        assert answer.status_code == 404


@pytest.mark.parametrize("digits", ["%C2%B2", "%D9%A3", "3" * 5000], ids=["²", "٣", "many"])
def test_a_version_in_digits_that_are_no_number_is_not_loaded(
    client: TestClient, digits: str
) -> None:
    assert client.post(f"/score?version={digits}", json={"instances": []}).status_code == 404


def bad(pointer: str, code: str, body: Any, route: str = "/score", status: int = 422) -> Any:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return pytest.param(route, text, status, pointer, code, id=f"{route}-{code}-{text[:40]!r}")


def score_with(**values: Any) -> dict[str, Any]:
    return {"instances": [{}, values]}


def rank_with(**values: Any) -> dict[str, Any]:
    return RANK | values


def one_candidate(**members: Any) -> dict[str, Any]:
    return RANK | {"candidates": [{"id": 1} | members]}


@pytest.mark.parametrize(
    ("route", "body", "status", "pointer", "code"),
    [
        bad("", "invalid_json", b"", status=400),
        bad("", "invalid_json", b"{", status=400),
        bad("", "invalid_json", b'{"instances": []} x', status=400),
        bad("", "invalid_json", b'{"instances": [{"age": NaN}]}', status=400),
        bad("", "invalid_json", b'{"instances": [{"age": Infinity}]}', status=400),
        bad("", "invalid_json", b'{"instances": [{"city": "\xff"}]}', status=400),
        bad("", "invalid_json", b'{"instances": [{"city": "\\ud800"}]}', status=400),
        bad("", "invalid_json", b'{"instances": ' + b"[" * 100_000, status=400),
        bad("", "invalid_json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, status=400),
        bad("", "wrong_type", []),
        bad("", "wrong_type", 7),
        bad("", "missing_key", {}),
        bad("", "unknown_key", {"instances": [], "columns": {"age": []}}),
        bad("/rows", "unknown_key", {"rows": [], "instances": []}),
        bad("/instances", "wrong_type", {"instances": None}),
        bad("/instances", "wrong_type", {"instances": {}}),
        bad("/instances/0", "wrong_type", {"instances": [None]}),
        bad("/instances/0", "wrong_type", {"instances": [[]]}),
        bad("/instances/1/age", "wrong_type", score_with(age="31")),
        bad("/instances/1/age", "wrong_type", score_with(age=True)),
        bad("/instances/1/age", "wrong_type", score_with(age=[1])),
        bad("/instances/0/age", "out_of_range", b'{"instances": [{"age": 1e999}]}'),
        bad("/instances/0/age", "out_of_range", b'{"instances": [{"age": 1' + b"0" * 400 + b"}]}"),
        bad("/instances/1/city", "wrong_type", score_with(city={"a": 1})),
        bad("/instances/1/city", "out_of_range", score_with(city=2**60)),
        bad("/instances/1/city", "out_of_range", score_with(city=-1e300)),
        bad("/instances/1/history", "wrong_type", score_with(history="h1")),
        bad("/instances/1/history/1", "wrong_type", score_with(history=["h1", ["h2"]])),
        bad("/instances/1/history/0", "out_of_range", score_with(history=[2**60])),
        bad("/instances/1/city", "too_long", score_with(city="x" * 1025)),
        bad("/instances/1/history", "too_many", score_with(history=["h1"] * 1001)),
        bad("/instances/1/history/1", "too_long", score_with(history=["h1", "x" * 1025])),
        bad("/columns/city/1", "too_long", {"columns": {"city": ["a", "x" * 1025]}}),
        bad("/columns/history/0", "too_many", {"columns": {"history": [["h1"] * 1001]}}),
        bad("/instances", "too_many", {"instances": [{}] * 201}),
        bad("/columns", "missing_key", {"columns": {}}),
        bad("/columns", "missing_key", {"columns": {"nobody": [1]}}),
        bad("/columns", "unequal_lengths", {"columns": {"age": [1], "city": []}}),
        bad("/columns", "wrong_type", {"columns": [1]}),
        bad("/columns/age", "wrong_type", {"columns": {"age": 31}}),
        bad("/columns/age", "wrong_type", {"columns": {"age": None}}),
        bad("/columns/age/3", "wrong_type", {"columns": {"age": [1, 2, None, "4"]}}),
        bad("/columns", "too_many", {"columns": {"age": [1] * 201}}),
        bad("", "wrong_type", [], "/rank"),
        bad("/candidates", "missing_key", {}, "/rank"),
        bad("/candidates", "wrong_type", rank_with(candidates=None), "/rank"),
        bad("/candidates", "wrong_type", rank_with(candidates="a"), "/rank"),
        bad("/k", "unknown_key", rank_with(k=1), "/rank"),
        bad("/context", "wrong_type", rank_with(context=[]), "/rank"),
        bad("/context/item", "wrong_side", rank_with(context={"item": 1}), "/rank"),
        bad("/context/age", "wrong_type", rank_with(context={"age": "x"}), "/rank"),
        bad("/top_k", "out_of_range", rank_with(top_k=0), "/rank"),
        bad("/top_k", "wrong_type", rank_with(top_k=1.0), "/rank"),
        bad("/top_k", "wrong_type", rank_with(top_k=True), "/rank"),
        bad("/top_k", "wrong_type", rank_with(top_k=None), "/rank"),
        bad("/pairwise", "wrong_type", rank_with(pairwise=1), "/rank"),
        bad(
            "/pairwise",
            "too_many",
            rank_with(pairwise=True, candidates=[{"id": n} for n in range(101)]),
            "/rank",
        ),
        bad("/candidates/0", "wrong_type", rank_with(candidates=[7]), "/rank"),
        bad("/candidates/0/id", "too_long", one_candidate(id="x" * 1025), "/rank"),
        bad("/candidates/id/0", "too_long", rank_with(candidates={"id": ["x" * 1025]}), "/rank"),
        bad("/partial", "wrong_type", rank_with(partial=1), "/rank"),
        bad("/context/city", "too_long", rank_with(context={"city": "x" * 1025}), "/rank"),
        bad("/candidates/0/id", "missing_key", rank_with(candidates=[{}]), "/rank"),
        bad("/candidates/0/id", "wrong_type", rank_with(candidates=[{"id": None}]), "/rank"),
        bad("/candidates/0/id", "wrong_type", rank_with(candidates=[{"id": True}]), "/rank"),
        bad("/candidates/0/id", "wrong_type", rank_with(candidates=[{"id": 1.5}]), "/rank"),
        bad("/candidates/0/price", "unknown_key", one_candidate(price=2), "/rank"),
        bad(
            "/candidates/1/features/price",
            "wrong_type",
            rank_with(candidates=[{"id": 1}, {"id": 2, "features": {"price": "9"}}]),
            "/rank",
        ),
        bad(
            "/candidates/0/features/age",
            "wrong_side",
            rank_with(candidates=[{"id": 1, "features": {"age": 3}}]),
            "/rank",
        ),
        bad("/candidates/0/features", "wrong_type", one_candidate(features=None), "/rank"),
        bad("/candidates/id", "missing_key", rank_with(candidates={"features": {}}), "/rank"),
        bad("/candidates/id", "wrong_type", rank_with(candidates={"id": 5}), "/rank"),
        bad("/candidates/id/0", "wrong_type", rank_with(candidates={"id": [None]}), "/rank"),
        bad(
            "/candidates/features",
            "unequal_lengths",
            rank_with(candidates={"id": [1, 2], "features": {"price": [1]}}),
            "/rank",
        ),
        bad(
            "/candidates/features/price/0",
            "wrong_type",
            rank_with(candidates={"id": [1], "features": {"price": [{}]}}),
            "/rank",
        ),
        bad("/candidates", "too_many", rank_with(candidates=[{"id": 1}] * 201), "/rank"),
        bad("/candidates/id", "too_many", rank_with(candidates={"id": [1] * 201}), "/rank"),
    ],
)  # fmt: skip
def test_bad_bodies_get_a_problem_document_that_names_the_place(
    client: TestClient, route: str, body: bytes, status: int, pointer: str, code: str
) -> None:
    answer = client.post(route, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < LARGEST_BODY_BYTES
    document = answer.json()
    assert document["status"] == status
    assert {"pointer": pointer, "code": code} in [
        {"pointer": error["pointer"], "code": error["code"]} for error in document["errors"]
    ]


def test_at_most_twenty_errors_are_told_and_no_value_is_repeated(client: TestClient) -> None:
    secret = "correct horse battery staple"
    answer = client.post("/score", json={"instances": [{"age": secret, "income": secret}] * 150})
    assert len(answer.json()["errors"]) == 20
    assert secret not in answer.text


def test_absurd_names_do_not_make_a_large_answer(client: TestClient) -> None:
    body: dict[str, Any] = {"x" * 100_000 + str(n): 1 for n in range(3)} | {"instances": []}
    answer = client.post("/score", json=body)
    assert answer.status_code == 422
    assert len(answer.content) < LARGEST_BODY_BYTES


def test_unknown_columns_of_no_rows_are_nothing_to_warn_of(client: TestClient) -> None:
    def answers(*values: int) -> list[Any]:
        columns = {"age": list(values), "brand new": list(values)}
        ranked = {"id": list(values), "features": {"brand new": list(values)}}
        bodies: dict[str, Any] = {"/score": {"columns": columns}, "/rank": {"candidates": ranked}}
        return [client.post(route, json=body).json() for route, body in bodies.items()]

    warning = [{"field": "brand new", "code": "unknown_field", "count": 2}]
    for _ in range(2):  # before the name is learned and after
        assert all("warnings" not in answer for answer in answers())
        assert [answer["warnings"] for answer in answers(7, 8)] == [warning, warning]


@pytest.mark.parametrize("length", [150, 5000], ids=["learned", "absurd"])
def test_names_that_a_client_made_up_are_cut_in_warnings_too(
    client: TestClient, length: int
) -> None:
    row = {"ü" * length + str(number): 1 for number in range(50)}
    for _ in range(2):
        told = client.post("/score", json={"instances": [row]}).json()["warnings"]
        assert [one["code"] for one in told] == ["unknown_field"] * 20
        assert all(len(one["field"]) <= LONGEST_NAME for one in told)
        assert told[0]["field"].endswith("0" if length < LONGEST_NAME else "…")


def test_pointer_escapes_are_those_of_rfc_6901(client: TestClient) -> None:
    answer = client.post("/score", json={"a/b~c": 1, "instances": []})
    assert answer.json()["errors"][0]["pointer"] == "/a~1b~0c"


def test_a_repeated_key_counts_by_its_last_value(client: TestClient) -> None:
    twice = b'{"instances": [{"age": "wrong", "age": 31}]}'
    answer = client.post("/score", content=twice)
    assert answer.status_code == 200
    assert answer.json()["scores"] == scores(client, [{"age": 31}])


def test_a_body_beyond_the_limit_is_413(client: TestClient) -> None:
    answer = client.post("/score", content=b" " * ((1 << 20) + 1))
    assert answer.status_code == 413
    assert answer.json()["errors"][0]["code"] == "too_long"


def test_bytes_are_counted_as_they_arrive(client: TestClient) -> None:
    answer = client.post("/score", content=(b" " * 65536 for _ in range(20)))
    assert answer.status_code == 413


def test_partial_says_how_many_were_scored(client: TestClient) -> None:
    answer = client.post("/rank", json=RANK | {"partial": True}).json()
    assert answer["scored"] == 3
    assert answer["items"] == client.post("/rank", json=RANK).json()["items"]


def test_a_wrong_deadline_and_a_compressed_body_are_refused(client: TestClient) -> None:
    for wrong in ("0", "-1", "x", "1.5"):
        answer = client.post("/score", json={"instances": []}, headers={"X-Deadline-Ms": wrong})
        assert answer.status_code == 400
        assert "X-Deadline-Ms" in answer.json()["detail"]
    answer = client.post("/score", content=b"{}", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["accept-encoding"] == "identity"


def test_a_request_is_not_run_once_its_client_has_left(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Client()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        left.is_gone = True  # between the body and the run
        return {"type": "http.request", "body": b'{"instances": [{}]}'}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/score", "query_string": b""}
    scope |= {"headers": [], "state": {"client": left}}  # type: ignore[dict-item]
    monkeypatch.setattr(Scorer, "score", lambda *_: pytest.fail("it was run"))
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent == []
    assert 'deepfm_refused_total{reason="client_gone"} 1.0' in client.get("/metrics").text


def test_large_identifiers_are_echoed_as_sent(client: TestClient) -> None:
    body = {"candidates": [{"id": 2**70}, {"id": "ü"}]}
    assert {item["id"] for item in client.post("/rank", json=body).json()["items"]} == {2**70, "ü"}
