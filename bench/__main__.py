"""Measure the server beside redis-server: requests a second, memory, fairness, growth."""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import growth, machine, table
from bench.campaign import CACHE_BYTES, Campaign, Plan

_RESULTS: Final = Path(__file__).parent / "results"
_QUICK: Final = Plan(
    mappings=10_000,
    rounds=1,
    scale=0.05,
    connections=500,
    look_ups=50_000,
    pings=100,
    crowd=20,
    batch=10_000,
    reported=1_000,
    sizes=(1_000,),
)
_FULL: Final = Plan(rounds=5, sizes=growth.ALL_SIZES)


def main() -> int:
    """Measure, print, and return 1 if any reply was wrong."""
    arguments = _parser().parse_args()
    plan = _plan(arguments)
    facts = machine.facts(plan.redis)
    print("\n".join(f"{name:<10} {fact}" for name, fact in facts.items()))
    print(
        f"\n{plan.mappings:,} mappings, medians of {plan.rounds} rounds, over TCP loopback;"
        f"\nanswers cache {CACHE_BYTES >> 20:,} MiB and warm; none for the rows uncached, memory"
        " and fairness\n",
        flush=True,
    )
    machine.raise_file_limit()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch:
        findings = Campaign(plan, Path(scratch)).run()
    tables = table.of(findings)
    print("\n\n".join(each.aligned() for each in tables))
    if arguments.json is not None:
        found = {
            "date": datetime.now(UTC).date().isoformat(),
            "command": "make bench-full" if arguments.full else "make bench",
            "machine": facts,
            "mappings": plan.mappings,
            "rounds": plan.rounds,
            "tables": [each._asdict() for each in tables],
            **findings.as_json(),
        }
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if findings.wrong:
        print(f"ERROR: {findings.wrong} wrong replies", file=sys.stderr)
    return 1 if findings.wrong else 0


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = _QUICK if arguments.quick else _FULL if arguments.full else Plan()
    if arguments.mappings is not None:
        plan = replace(plan, mappings=arguments.mappings)
    return plan if arguments.without_redis else replace(plan, redis=shutil.which("redis-server"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="a trial in seconds: one small round")
    length.add_argument("--full", action="store_true", help="five rounds, ten million mappings")
    parser.add_argument(
        "--mappings", type=_positive, metavar="N", help="mappings to load (1,000,000; quick 10,000)"
    )
    parser.add_argument("--without-redis", action="store_true", help="measure ours alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings there")
    parser.add_argument(
        "--directory",
        type=Path,
        default=_RESULTS,
        help="for databases; its disk is what durable rows measure (%(default)s)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
