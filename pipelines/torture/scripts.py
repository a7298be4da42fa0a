"""Names that are scripts, through real commands onto real pages, looked at in a real Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.torture.page import Row, Section
from pipelines.torture.payloads import PAYLOADS
from pipelines.torture.script_pages import write_pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
MOST_TOUCHED = 40
SETTLE_MS = 300
BODY = """{payloads} names were made that run a script or reach the network where a page shows them unescaped, among them
scripts, event handlers, frames, style sheets, redirections and templates. They were the names of perturbations, plates, labels, columns,
stains, images and folders, as far as each may have such a name, of what the real commands were given. Their pages were opened in
Chromium; every select, button, mark and name of a perturbation was used. A script that runs counts, and so does any
request but for the page itself, any dialog, and any element that a name has become.

| page | names shown | executions | requests | elements made of names | messages of the browser |
|---|---|---|---|---|---|
{rows}

The control: one page for each name, which shows it as it is, in text and in an attribute. {singing} of {payloads} run or
reach the network there.

{footer}
"""
_INJECTED = "iframe, object, embed, base, main script, header script, " + ", ".join(
    f"[on{event}]" for event in ("load", "error", "focus", "mouseover", "toggle", "begin")
)


@dataclass
class Visit:
    """What a page did.

    Attributes:
        page: As the table calls it.
        shown: How many of the names stand on it, as text.
        executions: Scripts that ran, and dialogs.
        requests: For anything but the page.
        injected: Elements that no template of ours has.
        messages: Of the browser's console, and errors.
    """

    page: str
    shown: int = 0
    executions: int = 0
    requests: list[str] = field(default_factory=list)
    injected: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def is_quiet(self) -> bool:
        return not (self.executions or self.requests or self.injected or self.messages)


def torture_scripts(out: Path, payloads: tuple[str, ...] = PAYLOADS) -> tuple[int, list[Visit]]:
    """Make the pages, open them, and count also the names that run on a page that escapes nothing.

    Raises:
        RuntimeError: A page could not be made, or there is no Chromium.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    pages = write_pages(out)
    with chromium() as browser:
        visits = [visit_page(browser, name, path, payloads) for name, path in pages.items()]
        controls = [visit_page(browser, "control", path, ()) for path in _controls(out, payloads)]
    singing = sum(bool(control.executions or control.requests) for control in controls)
    return singing, visits


def scripts_section(singing: int, visits: list[Visit], footer: str) -> Section:
    """Set what the pages did beside how, where and when they were opened."""
    rows = [
        f"| {one.page} | {one.shown} | {one.executions} | {len(one.requests)} | {one.injected} | {len(one.messages)} |"
        for one in visits
    ]
    body = BODY.format(payloads=len(PAYLOADS), singing=singing, rows="\n".join(rows), footer=footer)
    failures = [f"{one.page}: {one}"[:500] for one in visits if not one.is_quiet]
    executions, requests = sum(one.executions for one in visits), sum(len(one.requests) for one in visits)
    row = Row(
        "script in names",
        f"{len(PAYLOADS)} payloads on {len(visits)} pages in Chromium: the report, an ingest's quality page, a pretraining's report",
        "30 payloads: 0 executions, 0 network requests",
        f"{executions} executions, {requests} requests ({singing} of the payloads act on a page that escapes nothing)",
        len(PAYLOADS) >= 30 and singing > 0 and not failures,
    )
    return Section("Scripts in names", body, failures, (row,))


@contextmanager
def chromium() -> "Iterator[Browser]":
    """The system's browser.

    Raises:
        RuntimeError: There is none.
    """
    from playwright.sync_api import sync_playwright  # of the tests, not of cellvim

    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        message = "needs the system's Chromium (apt-get install chromium)"
        raise RuntimeError(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield browser
        browser.close()


def visit_page(browser: "Browser", name: str, path: Path, payloads: tuple[str, ...]) -> Visit:
    """Open a page, use whatever can be used, and note what happens."""
    visit = Visit(name)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()

    def dismiss(dialog: Any) -> None:
        visit.executions += 1
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.on("console", lambda message: visit.messages.append(message.text[:200]))
    page.on("pageerror", lambda error: visit.messages.append(str(error)[:200]))
    page.on(
        "request", lambda request: None if _is_own(request.url, path) else visit.requests.append(request.url)
    )
    page.goto(path.as_uri())
    page.wait_for_timeout(SETTLE_MS)
    if payloads:
        _use_everything(page, payloads)
    text = page.locator("body").inner_text() if payloads else ""
    visit.shown = sum(_plain(payload) in _plain(text) for payload in payloads)
    visit.injected = page.locator(_INJECTED).count() if payloads else 0
    visit.executions += int(page.evaluate("window.ran ?? 0"))
    context.close()
    return visit


def _use_everything(page: "Page", payloads: tuple[str, ...]) -> None:
    for payload in payloads:
        page.evaluate("name => { location.hash = 'focus=' + encodeURIComponent(name) }", payload)
        page.evaluate("name => { location.hash = 'focus=' + name }", payload)
    page.keyboard.press("Escape")
    _press_everything(page)
    for mark in page.locator(".mark-symbol > path, .mark-rect > path, td, th").all()[:MOST_TOUCHED]:
        for event in ("mouseover", "mousemove", "focus", "click"):
            mark.dispatch_event(event)
    for finder in page.locator("#finder").all():
        finder.fill("<")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
    page.wait_for_timeout(SETTLE_MS)


def _press_everything(page: "Page") -> None:
    for select in page.locator("select").all():
        for number in range(min(select.locator("option").count(), 8)):
            select.select_option(index=number)
    page.evaluate("() => document.querySelectorAll('details').forEach(each => { each.open = true })")
    for button in page.locator("button:visible").all()[:MOST_TOUCHED]:
        if button.is_visible():
            button.dispatch_event("click")
    page.keyboard.press("Escape")


def _controls(out: Path, payloads: tuple[str, ...]) -> Iterator[Path]:
    for number, payload in enumerate(payloads):
        path = out / f"control-{number}.html"
        page = f'<!doctype html><body><p title="{payload}">{payload}</p><a href="{payload}">x</a><script>x=["{payload}"]</script>'
        path.write_text(page)
        yield path


def _plain(text: str) -> str:
    """Without what the browser does to white space."""
    return "".join(text.split())


def _is_own(url: str, path: Path) -> bool:
    return url.startswith("data:") or url.partition("#")[0] == path.as_uri()
