"""Every method of the clients, on every transport."""

from typing import Any

import pytest

import hashserv
from tests.client.conftest import Connect
from tests.client.hashes import METHOD, hashed
from tests.conftest import StartServer
from tests.servers import ServerProcess

TASKHASH, OUTHASH, UNIHASH = hashed("task"), hashed("out"), hashed("uni")


@pytest.fixture
def client(connect: Connect, any_server: ServerProcess) -> Any:
    return connect(any_server.address)


def report(client: Any, name: str, extra: dict[str, Any] | None = None) -> Any:
    taskhash, outhash, unihash = (hashed(name, kind) for kind in ("task", "out", "uni"))
    return client.report_unihash(taskhash, METHOD, outhash, unihash, extra or {})


def test_ping(client: Any) -> None:
    assert client.ping() == {"alive": True}


def test_report_and_look_up(client: Any) -> None:
    mapping = {"taskhash": TASKHASH, "method": METHOD, "unihash": UNIHASH}
    assert client.get_unihash(METHOD, TASKHASH) is None
    assert client.report_unihash(TASKHASH, METHOD, OUTHASH, UNIHASH) == mapping
    assert client.get_unihash(METHOD, TASKHASH) == UNIHASH
    assert client.get_taskhash(METHOD, TASKHASH) == mapping
    assert client.get_taskhash(METHOD, hashed("other")) is None
    assert client.get_taskhash(METHOD, hashed("other"), True) is None
    # The same output of another task.
    assert client.report_unihash(hashed("task 2"), METHOD, OUTHASH, hashed("uni 2")) == {
        **mapping,
        "taskhash": hashed("task 2"),
    }


def test_columns_of_a_report(client: Any) -> None:
    extra = {"owner": "alice", "PN": "zlib", "PV": "1.3", "PR": "r0", "task": "do_package"}
    client.report_unihash(TASKHASH, METHOD, OUTHASH, UNIHASH, extra)
    assert extra.keys() == {"owner", "PN", "PV", "PR", "task"}, "the caller's is left alone"
    found = client.get_taskhash(METHOD, TASKHASH, all_properties=True)
    assert found.items() >= {**extra, "outhash": OUTHASH, "unihash": UNIHASH}.items()
    joined = client.get_outhash(METHOD, OUTHASH, TASKHASH)
    assert joined.items() >= {**extra, "taskhash": TASKHASH, "unihash": UNIHASH}.items()
    bare = client.get_outhash(METHOD, OUTHASH, TASKHASH, False)
    assert "unihash" not in bare
    assert bare["outhash"] == OUTHASH
    assert client.get_outhash(METHOD, hashed("other"), TASKHASH) is None


def test_report_equiv(client: Any) -> None:
    report(client, "a")
    known = hashed("a", "uni")
    mapping = {"taskhash": TASKHASH, "method": METHOD, "unihash": known}
    assert client.report_unihash_equiv(TASKHASH, METHOD, known) == mapping
    assert client.report_unihash_equiv(TASKHASH, METHOD, UNIHASH, {"PN": "x"}) == mapping
    assert client.get_unihash(METHOD, TASKHASH) == known


def test_batches(client: Any) -> None:
    report(client, "a")
    keys = [(METHOD, hashed(name, "task")) for name in "aba"]
    known = hashed("a", "uni")
    assert client.get_unihash_batch(iter(keys)) == [known, None, known]
    assert client.get_unihash_batch([]) == []
    assert list(client.get_unihash_stream(keys)) == [known, None, known]
    assert client.unihash_exists(known) is True
    assert client.unihash_exists(UNIHASH) is False
    assert client.unihash_exists_batch(iter([UNIHASH, known])) == [False, True]
    assert client.unihash_exists_batch([]) == []


def test_calls_of_all_modes_in_turns(client: Any) -> None:
    report(client, "a")
    known, key = hashed("a", "uni"), (METHOD, hashed("a", "task"))
    for _ in range(3):
        assert client.get_unihash(*key) == known
        assert client.unihash_exists(known) is True
        assert client.gc_mark_stream("m", [f"unihash {known}"])["count"] == 1
        assert client.ping() == {"alive": True}
        assert client.unihash_exists_batch([known, UNIHASH]) == [True, False]
        assert client.gc_status()["mark"] == "m"
        assert client.get_unihash_batch([key]) == [known]


def test_a_mode_is_kept_over_calls(client: Any) -> None:
    client.reset_stats()
    for _ in range(3):
        client.get_unihash(METHOD, TASKHASH)
    # The reset, three lines, and END.
    assert client.get_stats()["requests"]["num"] == 5


def test_statistics(client: Any) -> None:
    client.ping()
    before = client.reset_stats()["requests"]
    assert before["num"] == 1
    assert before.keys() == {"num", "total_time", "max_time", "average", "stdev"}
    assert client.get_stats()["requests"]["num"] == 1, "the reset counts"


def test_backfill_wait(client: Any) -> None:
    assert client.backfill_wait() == 0


def test_remove(client: Any) -> None:
    report(client, "a")
    assert client.remove({"method": "other"}) == {"count": 0}
    assert client.remove({"taskhash": hashed("a", "task")}) == {"count": 2}
    assert client.get_unihash(METHOD, hashed("a", "task")) is None


def test_clean_unused(client: Any) -> None:
    report(client, "a")
    client.gc_mark("m", {"method": "nothing"})
    client.gc_sweep("m")
    assert client.clean_unused(3600) == {"count": 0}
    assert client.clean_unused(0) == {"count": 1}


def test_database(client: Any) -> None:
    report(client, "a")
    usage = client.get_db_usage()
    assert usage["unihashes_v3"] == {"rows": 1}
    assert usage["outhashes_v2"] == {"rows": 1}
    columns = client.get_db_query_columns()
    assert {"method", "taskhash", "unihash", "outhash", "PN"} <= set(columns)
    for column in columns:
        assert client.remove({column: "nothing"}) == {"count": 0}


def test_collection(client: Any) -> None:
    for name in "abcde":
        report(client, name)
    assert client.gc_status() == {"keep": 5, "remove": 0, "mark": None}
    assert client.gc_mark("m", {"unihash": hashed("a", "uni"), "method": METHOD}) == {"count": 1}
    rows = [f"unihash {hashed('b', 'uni')}\n", f"  taskhash {hashed('c', 'task')} method {METHOD} "]
    assert client.gc_mark_stream("m", iter(rows)) == {"count": 2}
    assert client.gc_mark_stream("m", []) == {"count": 0}
    assert client.gc_status() == {"keep": 3, "remove": 2, "mark": "m"}
    with pytest.raises(hashserv.InvokeError, match="'other' is not the current mark"):
        client.gc_sweep("other")
    assert client.gc_sweep("m") == {"count": 2}
    assert client.unihash_exists_batch(hashed(name, "uni") for name in "abcd") == [
        *(True, True, True),
        False,
    ]


@pytest.mark.parametrize("siginfo", ["0" * 200_000, "日本語 😀\n é  " * 20_000])
def test_chunks_both_ways(client: Any, siginfo: str) -> None:
    client.report_unihash(TASKHASH, METHOD, OUTHASH, UNIHASH, {"outhash_siginfo": siginfo})
    assert client.get_taskhash(METHOD, TASKHASH, True)["outhash_siginfo"] == siginfo
    assert client.get_outhash(METHOD, OUTHASH, TASKHASH)["outhash_siginfo"] == siginfo
    assert client.get_unihash(METHOD, TASKHASH) == UNIHASH


def test_small_chunks(start_server: StartServer) -> None:
    with hashserv.create_client(start_server().address) as client:
        client.max_chunk = 8
        client.report_unihash(TASKHASH, METHOD, OUTHASH, UNIHASH, {"PN": "a  b \té"})
        found = client.get_taskhash(METHOD, TASKHASH, all_properties=True)
        assert found is not None
        assert found["PN"] == "a  b \té"


@pytest.mark.parametrize(
    "key", [("a b", "c"), ("", ""), ("a", "b\nc d"), ("a",), ("a", "b", "c"), ("a", "")]
)
def test_a_key_that_would_be_another_question(client: Any, key: Any) -> None:
    with pytest.raises(hashserv.ClientError, match="is not a method and a taskhash"):
        client.get_unihash_batch([(METHOD, TASKHASH), key])
    assert client.get_unihash(METHOD, TASKHASH) is None


@pytest.mark.parametrize("unihash", ["", " ", "END", "a b", "a\n"])
def test_a_unihash_that_would_be_another_question(client: Any, unihash: str) -> None:
    with pytest.raises(hashserv.ClientError, match="is not a unihash"):
        client.unihash_exists_batch([UNIHASH, unihash])
    assert client.unihash_exists(UNIHASH) is False


def test_a_row_of_a_column_without_a_value(client: Any) -> None:
    with pytest.raises(hashserv.ClientError, match="'unihash' is not made of columns and values"):
        client.gc_mark_stream("m", ["unihash "])
    assert client.ping() == {"alive": True}
