"""The site: built strictly, whole without a network, with nothing in it that could be out of date."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cellvim.cli import app
from cellvim.config import PretrainSettings
from pipelines.site import hook
from pipelines.site.mathematics import formula
from pipelines.site.pictures import IMAGES, PICTURES
from pipelines.site.reference import commands, settings
from tests.docs.pages import ROOT

REMOTE = re.compile(
    r'<(?:script|img|iframe|source)[^>]*\ssrc="(?:https?:)?//|<link[^>]*\shref="(?:https?:)?//'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    built = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return out


def test_no_page_asks_for_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert not REMOTE.search(page.read_text("utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", style.read_text("utf-8")), style


def test_parts_that_are_made_in_the_build_are_there(site: Path) -> None:
    assert "cellvim normalize" in (site / "reference/commands.html").read_text("utf-8")
    assert "base_learning_rate" in (site / "reference/settings.html").read_text("utf-8")
    assert "dense_tokens" in (site / "reference/python.html").read_text("utf-8")
    assert "CELLVIM_KERNEL" in (site / "methods/kernels.html").read_text("utf-8")
    assert 'href="bbbc022.html"' in (site / "screens/index.html").read_text("utf-8")
    assert "BR00117011" in (site / "screens/cpjump1.html").read_text("utf-8")
    scan = (site / "methods/scan.html").read_text("utf-8")
    assert scan.count('<svg role="img"') == 9
    assert "```math" not in scan
    assert not any("generated:" in page.read_text("utf-8") for page in (site / "reference").glob("*.html"))


def test_the_reference_names_every_command_and_flag() -> None:
    text = commands()
    group = typer.main.get_command(app)
    assert {"ingest", "pretrain", "embed", "evaluate"} <= set(group.commands)
    for name, command in group.commands.items():
        assert f"## `cellvim {name}`" in text
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"`{parameter.opts[0]}" in text, (name, parameter.name)


def test_the_reference_names_every_key_with_its_meaning() -> None:
    text = settings()
    for name, field in PretrainSettings.model_fields.items():
        assert f"| `{name}` | {' '.join((field.description or '').split())}"[:60] in text
    assert "<class" not in text
    assert "Annotated" not in text
    assert "| `positives` | " in text
    assert "| replicate or well | `replicate` |" in text


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_the_code_draws(name: str) -> None:
    assert (IMAGES / f"{name}.svg").read_text("utf-8") == PICTURES[name]().svg()


def test_a_formula_is_a_drawing_that_says_what_it_is() -> None:
    drawn = formula("a < \\frac{1}{2}\nb")
    assert drawn.count("<svg") == 2
    assert 'aria-label="a &lt; \\frac{1}{2}"' in drawn
    with pytest.raises(ValueError, match="nonsense"):
        formula("\\nonsense{1}")


def test_links_into_the_repository_must_lead_somewhere() -> None:
    linked = (
        "[tests/conftest.py](../tests/conftest.py), [the code](../cellvim) and [a page](ingest.md#quality)"
    )
    spelt = hook._without_outer_links(linked, "start.md")
    assert spelt == "`tests/conftest.py`, the code (`cellvim`) and [a page](ingest.md#quality)"
    with pytest.raises(Exception, match=r"start\.md: link to tests/nowhere\.py"):
        hook._without_outer_links("[x](../tests/nowhere.py)", "start.md")
