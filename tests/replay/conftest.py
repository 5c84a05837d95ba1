"""Count what was compared, and say so at the end of every run."""

from dataclasses import dataclass

import pytest

from tests.replay.player import Played


@dataclass
class Tally:
    """What tests have played so far."""

    conversations: int = 0
    replies: int = 0
    differences: int = 0

    def add(self, played: Played) -> None:
        """Count a conversation."""
        self.conversations += 1
        self.replies += played.replies
        self.differences += played.differences

    def __str__(self) -> str:
        return (
            f"{self.conversations} conversations, {self.replies:,} replies compared, "
            f"{self.differences} expected differences"
        )


_TALLIES = pytest.StashKey[dict[str, Tally]]()


def _tally(config: pytest.Config, name: str) -> Tally:
    return config.stash.setdefault(_TALLIES, {}).setdefault(name, Tally())


@pytest.fixture
def wire_tally(pytestconfig: pytest.Config) -> Tally:
    """The tally of recorded conversations."""
    return _tally(pytestconfig, "replay")


@pytest.fixture
def database_tally(pytestconfig: pytest.Config) -> Tally:
    """The tally of conversations over the reference's databases."""
    return _tally(pytestconfig, "databases")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was compared."""
    for name, tally in config.stash.get(_TALLIES, {}).items():
        terminalreporter.write_line(f"{name}: {tally}")
