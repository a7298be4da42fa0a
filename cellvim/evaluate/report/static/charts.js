// Every chart: a specification of the page and rows of ours, drawn by Vega without evaluating code.

// As SVG, so that marks drawn in currentColor follow the theme and the printer at once.
async function draw(element, kind, datasets, changes = {}) {
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
  return view;
}

function redraw(view, name, rows) {
  return view.data(name, rows).runAsync();
}
