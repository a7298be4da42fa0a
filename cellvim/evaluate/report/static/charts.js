// Every chart: a specification of the page and rows of ours, drawn by Vega without evaluating code.

// As SVG, so that marks drawn in currentColor follow the theme and the printer at once.
async function draw(element, kind, datasets, changes = {}, { choose = null } = {}) {
  const specification = { ...structuredClone(report.charts[kind]), ...changes, datasets };
  const options = {
    actions: false,
    ast: true,
    defaultStyle: false,
    mode: "vega-lite",
    renderer: "svg",
    tooltip: showTooltip,
  };
  const { view } = await vegaEmbed(element, specification, options);
  if (choose) {
    view.addEventListener("click", (_event, item) => {
      const name = item?.datum?.[choose];
      if (name) highlight.set(name);
    });
  }
  return view;
}

// Alternative text of a chart: what it shows, not only what kind it is.
function describe(element, text) {
  element.setAttribute("aria-label", text);
}

function redraw(view, name, rows) {
  return view.data(name, rows).runAsync();
}
