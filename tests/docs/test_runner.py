"""The runner itself must be able to fail: a page that promises too much is found out."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sybil.example import SybilFailure

from tests.docs.given import GIVEN
from tests.docs.pages import blocks_of, is_printed, run_page, shortened
from tests.docs.shell import Shell

TryPage = Callable[[str], Path]


@pytest.fixture(scope="module")
def commands() -> Path:
    """The `cellvim` of the environment: warming one up would take longer."""
    return Path(sys.executable).parent


@pytest.fixture
def try_page(commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TryPage:
    """Run a page of this text; gives its folder."""

    def run(text: str) -> Path:
        page = tmp_path / "page.md"
        page.write_text(text)
        folder = tmp_path / "folder"
        folder.mkdir()
        monkeypatch.chdir(folder)
        run_page(page, Shell(folder, commands))
        return folder

    return run


def test_blocks_share_a_folder_and_python_blocks_their_names(try_page: TryPage) -> None:
    folder = try_page(
        '```yaml title="a/b.yaml"\nsteps: 900\n```\n'
        "```bash\ncat a/b.yaml > seen; echo one; echo two\n```\nprints\n```console\none\n...o\n```\n"
        '```python\nfrom pathlib import Path\nseen = Path("seen").read_text()\n```\n'
        '```python\nassert seen == "steps: 2\\n"\n```\n'
        "<!-- exit: 3 -->\n```bash\ncellvim ingest nowhere --out plates\n```\n"
        "```console\nerror: no folder of images at nowhere\n...\n```\n"
        "<!-- not executed: it would never end -->\n```bash\nsleep 1000\n```\n"
        "```text\nanything\n```\n"
    )
    assert sorted(path.name for path in folder.iterdir()) == ["a", "seen"]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```bash\nfalse\n```\n", "exit code 1 instead of 0"),
        ("```bash\nfalse | true\n```\n", "exit code 1 instead of 0"),
        ("```bash\nfalse\ntrue\n```\n", "exit code 1 instead of 0"),
        ("```bash\necho $undefined\n```\n", "undefined: unbound variable"),
        ("```bash\ncellvim ingest nowhere --out plates\n```\n", "exit code 3 instead of 0"),
        ("<!-- exit: 3 -->\n```bash\ntrue\n```\n", "exit code 0 instead of 3"),
        ("<!-- exit: 3 -->\n\ntext\n```bash\nexit 3\n```\n", "exit code 3 instead of 0"),
        ("```bash\necho one\n```\n```console\ntwo\n```\n", "the page shows\ntwo"),
        ("```console\ntwo\n```\n", "no executed bash block"),
        ("text\n\n- a list\n\n    ```bash\n    false\n    ```\n", "exit code 1 instead of 0"),
        ("~~~bash\nfalse\n~~~\n", "exit code 1 instead of 0"),
    ],
)
def test_broken_promises_are_found(page: str, message: str, try_page: TryPage) -> None:
    with pytest.raises(SybilFailure, match=message):
        try_page(page)


def test_failing_python_is_found(try_page: TryPage) -> None:
    with pytest.raises(AssertionError):
        try_page("```python\nassert False\n```\n")


def test_a_page_writes_into_its_own_folder_only(try_page: TryPage, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        try_page('```yaml title="../elsewhere.yaml"\na: 1\n```\n')
    assert not (tmp_path / "elsewhere.yaml").exists()


def test_blocks_that_are_left_out_are_listed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not executed: -->\n```bash\na\n```\n<!-- not executed: why -->\n```\nb\n```\n```bash\nc\n```\n"
    )
    reasons = [(line, block.not_executed, block.language) for line, block in blocks_of(page)]
    assert reasons == [(2, "", "bash"), (6, "why", ""), (9, None, "bash")]


@pytest.mark.parametrize(
    ("wanted", "printed", "same"),
    [
        ("a  \nb", "a\nb\n", True),
        ("a...c", "a b\nc", True),
        ("a...", "a", True),
        ("a", "a\nb", False),
        ("a.b", "axb", False),
        ("...b", "a", False),
    ],
)
def test_output(wanted: str, printed: str, same: bool) -> None:
    assert is_printed(wanted, printed) is same


def test_only_steps_are_shortened() -> None:
    text = (
        "cellvim pretrain plates --steps 1000 --batch-size 64\npretrain: {steps: 300, checkpoint_every: 50}"
    )
    assert shortened(text) == text.replace("1000", "2").replace("300", "2")


def test_every_toy_says_what_it_is() -> None:
    assert all(write.__doc__ for write in GIVEN.values())
