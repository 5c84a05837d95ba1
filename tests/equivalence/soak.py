"""How many cases generated tests go through."""

import os

from hypothesis import HealthCheck, settings

TIMES = 10 if os.environ.get("HASHSERV_SOAK") else 1
"""How many times as long tests are in a soak."""


def cases(count: int) -> settings:
    """Return settings for so many generated cases, ten times as many in a soak.

    Nothing here depends on time: cases take as long as they take.
    """
    return settings(
        max_examples=count * TIMES,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
