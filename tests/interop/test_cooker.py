"""BitBake's own server: what its cooker does for ``BB_HASHSERVE = "auto"``, and after a build."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import bb.data
import bb.parse
import pytest

import hashserv
from hashserv.server.process import HashServer

METHOD, RECIPE_TASK = "tests.interop.outhash.of_task", "/recipes/zlib.bb:do_compile"
TASKHASH, OUTHASH, UNIHASH = "1" * 64, "2" * 64, "3" * 64


@pytest.fixture
def cooker(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """BitBake's cooker, with no more of its state than its server's start and end need."""
    # Its PR server is another program, which a build does without, and the package as well.
    prserv, serv = ModuleType("prserv"), ModuleType("prserv.serv")
    vars(serv).update(auto_start=lambda _: None, auto_shutdown=lambda: None)
    vars(serv).update(PRServiceConfigError=type("PRServiceConfigError", (Exception,), {}))
    vars(prserv).update(serv=serv)
    monkeypatch.setitem(sys.modules, "prserv", prserv)
    monkeypatch.setitem(sys.modules, "prserv.serv", serv)
    bbcooker: Any = importlib.import_module("bb.cooker")

    d = bb.data.init()
    d.setVar("BB_HASHSERVE", "auto")
    d.setVar("BB_SIGNATURE_HANDLER", "TestEquivHash")
    d.setVar("PERSISTENT_DIR", str(short_tmp / "cache"))
    d.setVar("CACHE", str(short_tmp / "cache"))
    d.setVar("TOPDIR", str(short_tmp))
    made = bbcooker.BBCooker.__new__(bbcooker.BBCooker)
    made.data = d
    made.databuilder = SimpleNamespace(mcdata={"": d}, mcorigdata={"": d.createCopy()})
    made.hashserv = made.hashservaddr = made.parser = None
    yield made
    made.post_serve()
    del bb.parse.siggen


def test_a_build_with_the_server_of_its_own(cooker: Any, short_tmp: Path) -> None:
    cooker.handlePRServ()
    assert isinstance(cooker.hashserv, HashServer)
    assert (short_tmp / "cache" / "hashserv.db").is_file()
    # The address is what all that BitBake starts is told.
    address = cooker.data.getVar("BB_HASHSERVE")
    assert address == f"unix://{short_tmp}/hashserve.sock"
    assert cooker.databuilder.mcorigdata[""].getVar("BB_HASHSERVE") == address

    with hashserv.create_client(address) as client:
        client.report_unihash(TASKHASH, METHOD, OUTHASH, UNIHASH)
    generator = bb.parse.siggen
    generator.method = METHOD
    generator.taskhash[RECIPE_TASK] = TASKHASH
    generator.tidtopn[RECIPE_TASK] = "zlib"
    assert generator.get_unihash(RECIPE_TASK) == UNIHASH

    # The configuration may be read again: the server stays.
    process = cooker.hashserv.process
    assert process is not None
    cooker.data.setVar("BB_HASHSERVE", "auto")
    cooker.handlePRServ()
    assert cooker.hashserv.process is process
    assert process.is_alive()

    cooker.post_serve()
    assert process.exitcode == 0
    assert not (short_tmp / "hashserve.sock").exists()


def test_the_next_build_knows_what_the_last_one_reported(cooker: Any) -> None:
    cooker.handlePRServ()
    with hashserv.create_client(cooker.hashservaddr) as client:
        client.report_unihash(TASKHASH, METHOD, OUTHASH, UNIHASH)
    cooker.post_serve()
    cooker.hashserv = None
    cooker.data.setVar("BB_HASHSERVE", "auto")
    cooker.handlePRServ()
    with hashserv.create_client(cooker.hashservaddr) as client:
        assert client.get_unihash(METHOD, TASKHASH) == UNIHASH
