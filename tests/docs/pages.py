"""What a page promises, executed: its code blocks, in order, in a folder of its own.

In a page of docs/ or README.md

- a `bash` or `python` block is run; a `bash` block must end with exit code 0, all `python` blocks of a page share names;
- a `console` block is what the `bash` block above it prints (`...` stands for anything, several lines included; so write it
  where a number comes from a model or a clock, which differ from machine to machine);
- a block of any other language with a title, as in ```` ```yaml title="study.yaml" ````, is written to that file;
- `<!-- given: plates, model -->` names what lies in the folder before the page starts (see given.py);
- `<!-- exit: 3 -->` directly above a `bash` block is the exit code that it must end with;
- `<!-- not executed: reason -->` directly above a block leaves it out.

Steps of training are cut to `STEPS`; everything else is run as it is written.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from tests.docs.shell import Shell

ROOT = Path(__file__).parents[2]
PAGES = tuple(sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]))

STEPS = 2
LONG_TRAINING = re.compile(r"(--steps[ =]|\bsteps: )\d+")

LANGUAGES = frozenset({"bash", "python", "console", "text", "math", "yaml", "json", "csv"})
EXECUTED = frozenset({"bash", "python", "console"})

BLOCK = RawFencedCodeBlockLexer(
    re.compile(r'(?P<language>[^\s`]*)(?:[ \t]+title="(?P<title>[^"\n]+)")?[ \t]*\n')
)
DIRECTIVE = re.compile(r"<!-- (?P<name>exit|not executed):?(?P<value>[^\n]*?)-->[ \t]*\n[ \t]*\Z")
GIVEN = re.compile(r"<!-- given: (?P<names>[^\n]+?) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and what the comment directly above it says."""

    language: str
    title: str | None
    source: str
    exit_code: int
    not_executed: str | None
    """The reason; empty if none is given, None if the block is executed."""


def parse_page(path: Path) -> Document:
    """Read a page; its examples have a `Block` each, and know how to evaluate it in `namespace["shell"]`."""
    return Sybil(parsers=[_parse], path=str(path.parent)).parse(path)


def blocks_of(path: Path) -> Iterator[tuple[int, Block]]:
    """List every block of a page with its line."""
    for example in parse_page(path).examples():
        yield example.line, example.parsed


def givens_of(path: Path) -> tuple[str, ...]:
    """Names of what lies in the folder of a page before it starts."""
    found = GIVEN.findall(path.read_text("utf-8"))
    return tuple(name.strip() for names in found for name in names.split(","))


def run_page(path: Path, shell: Shell) -> None:
    """Evaluate every block of a page, from first to last.

    Raises:
        SybilFailure: A block does not do what the page says; the message names file and line.
    """
    document = parse_page(path)
    document.namespace.update(shell=shell, printed=None)
    for example in document.examples():
        example.evaluate()


def _parse(document: Document) -> Iterator[Region]:
    for region in BLOCK(document):
        lexeme = region.lexemes["source"]
        above = DIRECTIVE.search(document.text, 0, region.start)
        named = {above["name"]: above["value"].strip()} if above else {}
        region.parsed = Block(
            language=region.lexemes["language"],
            title=region.lexemes["title"],
            source=lexeme,
            exit_code=int(named.get("exit", 0)),
            not_executed=named.get("not executed"),
        )
        region.evaluator = _evaluate
        yield region


def _evaluate(example: Example) -> str | None:
    block: Block = example.parsed
    if block.not_executed is not None:
        example.namespace["printed"] = None
        return None
    if block.language == "python":
        example.parsed = example.region.lexemes["source"]
        PythonEvaluator()(example)
        return None
    if block.language == "bash":
        return _run_bash(example, block)
    if block.language == "console":
        return _compare(block.source, example.namespace["printed"])
    if block.title is not None:
        example.namespace["shell"].write(block.title, shortened(block.source))
    return None


def _run_bash(example: Example, block: Block) -> str | None:
    result = example.namespace["shell"].run(shortened(block.source))
    example.namespace["printed"] = (result.stdout, result.stderr)
    if result.returncode == block.exit_code:
        return None
    wanted = f"exit code {result.returncode} instead of {block.exit_code}"
    return (
        f"{wanted}\n{block.source}\n--- stdout\n{result.stdout[-4000:]}\n--- stderr\n{result.stderr[-4000:]}"
    )


def _compare(wanted: str, printed: tuple[str, str] | None) -> str | None:
    """Hold an output block to what was printed, on stdout or on stderr."""
    if printed is None:
        return "no executed bash block stands above this output"
    if any(is_printed(wanted, stream) for stream in printed):
        return None
    return f"the page shows\n{wanted}\n--- stdout\n{printed[0]}\n--- stderr\n{printed[1]}"


def is_printed(wanted: str, printed: str) -> bool:
    """Whether an output is as the page shows it; `...` stands for anything, spaces at ends of lines for nothing."""
    parts = (re.escape(part) for part in _trimmed(wanted).split("..."))
    return re.fullmatch(".*".join(parts), _trimmed(printed), re.DOTALL) is not None


def shortened(source: str) -> str:
    """Cut the steps of every training, which is all that the tests change in a page."""
    return LONG_TRAINING.sub(rf"\g<1>{STEPS}", source)


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().split("\n"))
