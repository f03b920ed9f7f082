"""Every bad candidate goes back by itself, and a person goes back at once, with users on: bench/drill.py."""

from __future__ import annotations

import pytest
from bench import drill


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_bound_is_broken() -> None:
    said = drill.run(list(drill.BAD), busy=False)
    assert said["broken"] == []
    assert said["drills"].keys() == set(drill.BAD.values())
    assert all(one["whole_streams"] > 20 for one in [*said["drills"].values(), said["rollback"]])
