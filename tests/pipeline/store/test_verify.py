from __future__ import annotations

from pathlib import Path

import pytest
from tests.stores import MadeStore, all_objects, flip, sealed_store

from softcask.pipeline.store.verify import verify
from softcask.storage_schemas.errors import StoreNotFound


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    return sealed_store(str(tmp_path_factory.mktemp("store") / "s"))


def damaged(made: MadeStore, key: str, data: bytes | None) -> list[str]:
    """Keys with problems while `key` holds other data, or is gone."""
    path = Path(made.objects.path(key))
    whole = path.read_bytes()
    try:
        path.unlink() if data is None else path.write_bytes(data)
        return [problem.key for problem in verify(made.objects.uri).problems]
    finally:
        path.write_bytes(whole)


def test_a_whole_store_has_no_problem_and_every_object_is_counted(made: MadeStore) -> None:
    steps: list[tuple[int, int, int]] = []
    report = verify(made.objects.uri, progress=lambda *step: steps.append(step))
    standing = all_objects(made.objects)
    assert report.problems == ()
    assert (report.objects, report.bytes) == (len(standing), sum(map(len, standing.values())))
    assert report.orphans == 0
    assert [done for done, _, _ in steps] == list(range(1, len(standing) + 1))
    assert steps[-1] == (report.objects, report.objects, report.bytes)


def test_a_flipped_byte_in_any_object_is_found_and_the_object_named(made: MadeStore) -> None:
    for key, data in all_objects(made.objects).items():
        for place in {0, len(data) // 2, len(data) - 1}:
            assert key in damaged(made, key, flip(data, place)), (key, place)


def test_a_missing_object_is_found_and_named(made: MadeStore) -> None:
    for key in all_objects(made.objects):
        # The pointer is a hint, and what a run measured is spoken of nowhere.
        expected = [] if key.startswith(("catalog/newest", "runs/")) else [key]
        assert damaged(made, key, None) == expected


def test_a_place_without_a_store_is_said_to_hold_none(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("not ours")
    for uri in (tmp_path, tmp_path / "nowhere", tmp_path / "letters.txt"):
        with pytest.raises(StoreNotFound, match="softcask.json"):
            verify(str(uri))
