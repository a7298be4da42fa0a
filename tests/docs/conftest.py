"""A warm `cellvim`, and toys that are made once, for all pages."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.given import Toys, lay_out
from tests.docs.pages import givens_of
from tests.docs.shell import Shell
from tests.docs.warm import warm_cellvim


@pytest.fixture(scope="session")
def commands() -> Iterator[Path]:
    with warm_cellvim() as folder:
        yield folder


@pytest.fixture(scope="session")
def toys(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Toys:
    return Toys(tmp_path_factory.mktemp("toys"), commands)


@pytest.fixture
def shell_of(
    commands: Path, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], Shell]:
    """Stand in the folder of a page, with all in it that the page is given."""

    def enter(page: Path) -> Shell:
        lay_out(givens_of(page), toys, tmp_path)
        monkeypatch.chdir(tmp_path)
        return Shell(tmp_path, commands)

    return enter
