"""What the tests of the Python API share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from llmd_sched import Router


@pytest.fixture
def router() -> Iterator[Router]:
    """A router with two endpoints without events, ``http://a`` and ``http://b``."""
    with Router(seed=1) as router:
        router.add_endpoint("http://a", model="m")
        router.add_endpoint("http://b", model="m")
        yield router
