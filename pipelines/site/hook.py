"""What MkDocs calls while it builds the site: generated parts, mathematics, and links that leave the folder docs/."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from pipelines.site.mathematics import formula
from pipelines.site.reference import GENERATED

ROOT = Path(__file__).parents[2]
SCREENS = ROOT / "pipelines" / "published"
REMOTE_WORKER = "https://unpkg.com/iframe-worker/shim"
"""What lets the search of a page work that was opened from a folder."""
MARKER = re.compile(r"^<!-- generated: (?P<name>\w+) -->$", re.MULTILINE)
FORMULA = re.compile(r"^```math\n(?P<tex>.+?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]*(?:\n[^\]\n]+)?)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
CODE = re.compile(r"^(```|~~~).*?^\1$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every page of a folder where the navigation says FOLDER/*.md."""
    config.nav = [_with_folders(entry, Path(config.docs_dir)) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Show the pages of published screens, which lie beside their code."""
    for path in [SCREENS / "README.md", *sorted(SCREENS.glob("*/README.md"))]:
        name = "index" if path.parent == SCREENS else path.parent.name
        content = path.read_text(encoding="utf-8").replace("/README.md)", ".md)")
        files.append(File.generated(config, f"screens/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated, draw the mathematics, and turn links into the repository to plain paths."""
    del config, files
    markdown = MARKER.sub(lambda found: GENERATED[found["name"]](), markdown)
    markdown = FORMULA.sub(lambda found: formula(found["tex"]), markdown)
    return _map_outside_code(markdown, lambda text: _without_outer_links(text, page.file.src_uri))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Take the one script of the theme that would come from another site from this one."""
    del config
    return output.replace(REMOTE_WORKER, "../" * page.url.count("/") + "file_worker.js")


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Do the same for pages of the theme, such as that of a page not found."""
    del template_name, config
    return output_content.replace(REMOTE_WORKER, "/file_worker.js")


def _with_folders(entry: Any, docs: Path) -> Any:
    if isinstance(entry, dict):
        return {title: _with_folders(below, docs) for title, below in entry.items()}
    if not isinstance(entry, list):
        return entry
    pages: list[Any] = []
    for below in entry:
        if isinstance(below, str) and "*" in below:
            pages += [path.relative_to(docs).as_posix() for path in sorted(docs.glob(below))]
        else:
            pages.append(_with_folders(below, docs))
    return pages


def _map_outside_code(markdown: str, change: Any) -> str:
    pieces, end = [], 0
    for code in CODE.finditer(markdown):
        # A link's text may be code, so that a piece must not be cut inside of one.
        if code[0].startswith("`") and not code[0].startswith("```"):
            continue
        pieces += [change(markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, change(markdown[end:])])


def _without_outer_links(markdown: str, page: str) -> str:
    """The site holds no code: a link to a file of the repository becomes its path, and must be there."""

    def spell(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), found["target"]))
        if "://" in found["target"] or target.startswith("docs/"):
            return found[0]
        if not (ROOT / target).exists():
            msg = f"{page}: link to {target}, which does not exist"
            raise PluginError(msg)
        text = found["text"].strip("`")
        return f"`{text}`" if text == target else f"{found['text']} (`{target}`)"

    return LINK.sub(spell, markdown)
