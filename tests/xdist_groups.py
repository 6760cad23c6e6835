"""Which of pytest-xdist's workers runs which tests: what shares something expensive stays together, the longest go first.

`--dist loadgroup` and its marks would not do it: pytest 9.2 no longer reads the attribute into which pytest-xdist 3.8
writes a test's group, so that every test goes alone, without a word.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

GROUPS = {
    # Servers, workers and browsers, which keep the cores busy by themselves: never two of them at a time.
    "processes": ("tests/e2e/", "tests/training/test_workers.py"),
    # Networks that are trained once for all that look at them.
    "planted faults": ("tests/faults/",),
    "power": ("tests/power/",),
    "bundles": ("tests/mlcore/",),
    "clients": ("tests/runtime/",),
    # Long, and nothing else: begun last, they would be waited for alone.
    "example recipes": ("tests/gates/test_own_recipes.py",),
    "own recipes": ("tests/training/test_own_recipes.py",),
    "fuzzing": ("tests/fuzz/",),
    "candle formats": ("tests/api/test_candle_formats.py",),
    "declared models": ("tests/gates/test_declared_models.py",),
    "schema": ("tests/api/test_conformance.py",),
    "heartbeat batcher": ("tests/deploy/test_heartbeat_batcher.py",),
    "imported models": ("tests/training/test_imported_models.py",),
    "runs": ("tests/training/test_training.py",),
    "live": ("tests/deploy/test_live.py",),
}
LONGEST_FIRST = list(GROUPS)


def group_of(nodeid: str) -> str:
    """The group that a test is in, or its file."""
    file = nodeid.partition("::")[0]
    return next((name for name, paths in GROUPS.items() if file.startswith(paths)), file)


def group_position(nodeid: str) -> int:
    group = group_of(nodeid)
    return LONGEST_FIRST.index(group) if group in GROUPS else len(GROUPS)


class GroupScheduling(LoadScopeScheduling):
    """Hands out whole groups and files in the order in which the workers have collected them."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    config.option.loadscopereorder = False  # it would put first what has the most tests, however short
    return GroupScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In turn of the groups; within a group, and among the files, the random order stays."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: group_position(item.nodeid))
