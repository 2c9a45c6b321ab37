"""Files of a pattern, and of a folder that a run names, travel whole."""

from __future__ import annotations

from pathlib import Path

from softcask.jobs.submission.luggage import Luggage


def test_the_files_of_a_pattern_travel_and_the_pattern_finds_them_there(tmp_path: Path) -> None:
    inside, outside = tmp_path / "run", tmp_path / "data"
    for folder in (inside / "parts", outside / "a", outside / "b"):
        folder.mkdir(parents=True)
        (folder / "1.parquet").write_text("")
        (folder / "2.txt").write_text("")
    luggage = Luggage(inside)
    for pattern in (inside / "parts" / "*.parquet", outside / "*" / "*.parquet"):
        assert luggage.finds(pattern)
    assert luggage.take(inside / "parts" / "*.parquet", as_code=False) == "parts/*.parquet"
    assert luggage.take(outside / "*" / "*.parquet", as_code=False) == "softcask-outside/0/data/*/*.parquet"
    assert not luggage.finds(outside / "*.csv")
    assert [each.name for each in luggage.sent()] == [
        "parts/1.parquet",
        "softcask-outside/0/data/a/1.parquet",
        "softcask-outside/0/data/b/1.parquet",
    ]


def test_a_folder_of_data_travels_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "images" / ".hidden").mkdir(parents=True)
    (tmp_path / "images" / ".hidden" / "1.png").write_bytes(bytes(3))
    luggage = Luggage(tmp_path)
    assert luggage.take(tmp_path / "images", as_code=False) == "images"
    assert [(each.name, each.size) for each in luggage.sent()] == [("images/.hidden/1.png", 3)]


def test_folders_of_one_name_from_elsewhere_stay_apart_and_one_is_taken_once(tmp_path: Path) -> None:
    for folder in ("run", "a/lib", "b/lib"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "m.py").write_text(folder)
    luggage = Luggage(tmp_path / "run")
    taken = [luggage.take(tmp_path / folder, as_code=True) for folder in ("a/lib", "b/lib", "a/lib", "run")]
    assert taken == ["softcask-outside/0/lib", "softcask-outside/1/lib", "softcask-outside/0/lib", "."]
    assert luggage.take(tmp_path / "a" / "lib" / "m.py", as_code=False) == "softcask-outside/0/lib/m.py"
    assert [each.name for each in luggage.sent()] == [
        "m.py",
        "softcask-outside/0/lib/m.py",
        "softcask-outside/1/lib/m.py",
    ]
