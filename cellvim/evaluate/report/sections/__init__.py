"""Sections that plug into the page.

To add one, write these and put it into `SECTIONS`:

1. A module here with `SECTION = Section(key, title_for_nav, template, data, scripts, specifications, after)`.
   `data(content)` returns a dict of plain JSON values, or None where the report has nothing to show there; then
   neither its template nor its script is in the page. The dict goes into the page's JSON as
   `report.sections[key]` (escaped), and its entries are variables of the template, beside everything that other
   templates have (`content`, `labels`, `significant_q`, the filters) and `section`.
   `specifications()` returns Vega-Lite specifications without data by names of their own, which go into
   `report.charts`.
2. `templates/sections/NAME.html.j2`: a `<section id="{{ section.key }}" aria-labelledby="{{ section.key }}-title">`
   with an `<h2 id="{{ section.key }}-title">`. Autoescaping is on; no inline styles, no event attributes: the
   page's policy refuses them. The macros of `macros.html.j2` are there to import `with context`.
3. If it draws or answers to clicks, `static/sections/NAME.js`, joined into the page's one script after data,
   tooltip and charts; so its names at the top level must not be used elsewhere. It may define `startKey(data)`
   (key `dose_overview`: `startDoseOverview`), which is called once and may return a promise; `data` is
   `report.sections[key]`. `draw(element, "NAME OF THE SPECIFICATION", {DATASET: rows})` draws and gives a Vega
   view, `redraw(view, DATASET, rows)` changes it, `describe(element, text)` gives a chart its finding as
   alternative text. Names go into the page by `textContent` only.
4. Choosing a perturbation: an element with class `choose` and `data-perturbation="NAME"` (best a
   `<button type="button">`) is all it takes; rows of a chart's data that carry `name` choose it when their mark is
   clicked if the chart is drawn with `draw(element, kind, datasets, {}, {choose: "name"})`. To follow the choice,
   `highlight.listeners.push((name) => ...)`: it is called with the name of the perturbation, or "".
"""

from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.batch_or_biology import SECTION as BATCH_OR_BIOLOGY
from cellvim.evaluate.report.sections.confusion import SECTION as CONFUSION
from cellvim.evaluate.report.sections.dose_overview import SECTION as DOSE_OVERVIEW
from cellvim.evaluate.report.sections.label_groups import SECTION as LABEL_GROUPS
from cellvim.evaluate.report.sections.layer_choice import SECTION as LAYER_CHOICE
from cellvim.evaluate.report.sections.not_done import SECTION as NOT_DONE
from cellvim.evaluate.report.sections.paired_comparison import SECTION as PAIRED_COMPARISON
from cellvim.evaluate.report.sections.provenance import SECTION as PROVENANCE
from cellvim.evaluate.report.sections.relationships import SECTION as RELATIONSHIPS
from cellvim.evaluate.report.sections.replicates import SECTION as REPLICATES

SECTIONS: tuple[Section, ...] = (
    LAYER_CHOICE,
    PAIRED_COMPARISON,
    DOSE_OVERVIEW,
    REPLICATES,
    LABEL_GROUPS,
    RELATIONSHIPS,
    BATCH_OR_BIOLOGY,
    CONFUSION,
    NOT_DONE,
    PROVENANCE,
)
"""In the order of the page, within what they follow."""
