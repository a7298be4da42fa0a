// Charts of several layers: one that has nothing to show is left out, for an axis cannot be made of nothing.

function isDrawable(layer, chart, datasets) {
  // Layers that share their data have them one level up.
  const rows = datasets[(layer.data ?? chart.data).name];
  const fields = ["x", "y", "x2", "y2"].map((channel) => layer.encoding[channel]?.field).filter(Boolean);
  const hasValue = (field) => rows.some((row) => row[field] !== null && row[field] !== undefined);
  return rows.length > 0 && fields.every(hasValue);
}

function drawLayers(element, kind, datasets, changes = {}, options = {}) {
  const layer = report.charts[kind].layer.filter((each) => isDrawable(each, report.charts[kind], datasets));
  return drawKeepingText(element, kind, datasets, { ...changes, layer }, options);
}

// Vega writes a text of its own over the one that says what was found.
async function drawKeepingText(element, ...chart) {
  const text = element.getAttribute("aria-label");
  const view = await draw(element, ...chart);
  element.setAttribute("role", "img");
  describe(element, text);
  return view;
}
