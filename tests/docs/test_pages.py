"""Every page does what it says, and nothing is left out silently."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.given import GIVEN
from tests.docs.pages import EXECUTED, LANGUAGES, PAGES, ROOT, blocks_of, givens_of, run_page
from tests.docs.shell import Shell


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


EXECUTED_PAGES = tuple(
    page
    for page in PAGES
    if any(block.language in EXECUTED and block.not_executed is None for _, block in blocks_of(page))
)


@pytest.mark.parametrize("page", EXECUTED_PAGES, ids=name_of)
def test_blocks_do_what_the_page_says(page: Path, shell_of: Callable[[Path], Shell]) -> None:
    run_page(page, shell_of(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    """A block without a language would be a command that nobody tries; README.md may show some, beside these pages."""
    for line, block in blocks_of(page):
        if page.name == "README.md" and not block.language:
            continue
        assert block.language in LANGUAGES, (
            f"{name_of(page)}:{line}: a block needs one of {sorted(LANGUAGES)}"
        )
        assert block.not_executed != "", f"{name_of(page)}:{line}: 'not executed' needs a reason"
    assert set(givens_of(page)) <= set(GIVEN)
