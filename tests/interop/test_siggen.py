"""BitBake's signature generator on our client and server: what a build does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bb.data
import bb.event
import bb.runqueue
import bb.siggen
import pytest

import hashserv
from tests.interop.outhash import OUTHASH
from tests.servers import ServerProcess

METHOD = "tests.interop.outhash.of_task"
RECIPE = "/recipes/zlib.bb"


def tid(name: str) -> str:
    return f"{RECIPE}:do_{name}"


def digits(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def settings(any_server: ServerProcess, short_tmp: Path) -> Any:
    """BitBake's variables, as a configuration makes them."""
    d = bb.data.init()
    d.setVar("BB_HASHSERVE", any_server.address)
    d.setVar("CACHE", str(short_tmp))
    d.setVar("PERSISTENT_DIR", str(short_tmp))
    return d


@pytest.fixture
def generator(settings: Any) -> Iterator[Any]:
    """A generator that knows twenty tasks of one recipe."""
    made = bb.siggen.SignatureGeneratorTestEquivHash(settings)
    made.method = METHOD
    for number in range(20):
        made.taskhash[tid(f"task{number}")] = digits(number)
        made.tidtopn[tid(f"task{number}")] = "zlib"
    yield made
    made.exit()


@pytest.fixture
def client(any_server: ServerProcess) -> Iterator[hashserv.client.Client]:
    """A client beside BitBake's."""
    with hashserv.create_client(any_server.address) as made:
        yield made


def test_unihashes_of_many_tasks(generator: Any, client: hashserv.client.Client) -> None:
    for number in range(0, 20, 2):
        client.report_unihash(digits(number), METHOD, digits(number), digits(1000 + number))
    # The known ones take the server's unihash, the others their taskhash.
    expected = {
        tid(f"task{number}"): digits(number if number % 2 else 1000 + number)
        for number in range(20)
    }
    assert generator.get_unihashes(expected) == expected
    assert generator.get_unihash(tid("task4")) == digits(1004)


def test_a_method_of_its_own_for_a_task(generator: Any, client: hashserv.client.Client) -> None:
    generator.extramethod[tid("task1")] = ":extra"
    client.report_unihash(digits(1), METHOD + ":extra", digits(1), digits(1001))
    assert generator.get_unihash(tid("task1")) == digits(1001)


def test_unihashes_that_exist(generator: Any, client: hashserv.client.Client) -> None:
    client.report_unihash(digits(1), METHOD, digits(1), digits(1001))
    query = {"a": digits(1001), "b": digits(1002)}
    assert generator.unihashes_exist(query) == {"a": True, "b": False}
    assert generator.unihashes_exist(query) == {"a": True, "b": False}
    assert generator.unihashes_exist({}) == {}


def test_report_equiv(generator: Any, client: hashserv.client.Client) -> None:
    client.report_unihash(digits(1), METHOD, digits(1), digits(1001))
    task, wanted = tid("task2"), digits(1001)
    assert generator.report_unihash_equiv(task, digits(2), wanted, digits(2), None) is True
    assert generator.get_unihash(task) == wanted
    assert client.get_unihash(METHOD, digits(2)) == wanted
    # A mapping is never changed, and BitBake told so.
    assert generator.report_unihash_equiv(task, digits(2), digits(9), digits(9), None) is False
    assert client.get_unihash(METHOD, digits(2)) == wanted


@pytest.mark.parametrize("taskdata", ["", "1"])
def test_report_of_a_task_that_ran(
    generator: Any,
    settings: Any,
    client: hashserv.client.Client,
    short_tmp: Path,
    taskdata: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fired: list[Any] = []
    monkeypatch.setattr(bb.event, "fire", lambda event, _d: fired.append(event))
    client.report_unihash(digits(99), METHOD, OUTHASH, digits(1099))  # the same output, before
    d = settings.createCopy()
    task = tid("task3")
    assert generator.get_unihash(task) == digits(3)
    for name, value in {
        "BB_TASKHASH": digits(3),
        "BB_UNIHASH": digits(3),
        "BB_FILENAME": RECIPE,
        "T": str(short_tmp),
        "PN": "zlib",
        "PV": "1.3",
        "PR": "r0",
        "SSTATE_HASHEQUIV_OWNER": "alice",
        "SSTATE_HASHEQUIV_REPORT_TASKDATA": taskdata,
    }.items():
        d.setVar(name, value)
    generator.report_unihash("/nowhere", "task3", d)

    assert d.getVar("BB_UNIHASH") == digits(1099)
    assert generator.get_unihash(task) == digits(1099)
    assert [(event.taskid, event.unihash) for event in fired] == [(task, digits(1099))]
    assert client.get_unihash(METHOD, digits(3)) == digits(1099)
    found = client.get_taskhash(METHOD, digits(3), all_properties=True)
    assert found is not None
    assert (found["owner"], found["outhash"]) == ("alice", OUTHASH)
    assert found["PN"] == ("zlib" if taskdata else None)
    assert found["outhash_siginfo"] == ("do_task3\n" * 20_000 if taskdata else None)


def test_a_build_goes_on_without_its_server(
    generator: Any, any_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(bb, "warn", warned.append)
    any_server.stop()
    assert generator.get_unihash(tid("task1")) == digits(1)
    assert len(warned) == 1
    assert warned[0].startswith(f"Error contacting Hash Equivalence Server {any_server.address}")


def test_a_restart_goes_unnoticed(
    generator: Any, any_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bb, "warn", pytest.fail)
    if not any_server.address.startswith("unix://"):
        any_server._command[any_server._command.index("--bind") + 1] = any_server.address
    assert generator.get_unihash(tid("task1")) == digits(1)
    any_server.stop()
    any_server.start()
    assert generator.get_unihash(tid("task2")) == digits(2)
