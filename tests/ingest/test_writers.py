"""Eight processes that write one plate at the same moment."""

from pathlib import Path

from pipelines.torture.writers import Round, torture_writers


def test_one_of_eight_writers_wins_and_seven_name_it(shared: Path, tmp_path: Path) -> None:
    rounds = torture_writers(shared / "data", tmp_path, rounds=1, wells=1)
    assert rounds == [Round(writers=8, winners=1, refused=7, named=7, is_intact=True, unexpected=())]
