// The dose curve of a compound in the focus panel: every well of it, with the controls as a band.

let doseView = null;

function doseRows(name) {
  const { dose } = report.focus;
  if (!dose) return [];
  const rows = [...dose.well.keys()];
  const own = new Set(rows.filter((row) => textOf(PERTURBATION, dose.well[row]) === name).map((row) => dose.compound[row]));
  own.delete(null);
  return rows.filter((row) => own.has(dose.compound[row]) && dose.dose[row] > 0 && dose.projection[row] !== null);
}

function dosePart(name) {
  const rows = doseRows(name);
  if (new Set(rows.map((row) => report.focus.dose.dose[row])).size < 2) return null;
  const chart = element("div", "", "chart");
  chart.setAttribute("role", "img");
  chart.dataset.dose = "";
  const words = doseWords(name, rows);
  describe(chart, words);
  return part("Dose", chart, element("p", words, "detail"));
}

function doseWords(name, rows) {
  const { dose } = report.focus;
  const compound = dose.compounds[dose.compound[rows[0]]];
  const fit = dose.fits[compound] ?? {};
  const unit = fit.unit ? ` ${fit.unit}` : "";
  const medians = mediansByDose(rows);
  const [first, last] = [medians[0], medians.at(-1)];
  const said = [
    `${compound}: from ${shortNumber(first.projection)} at ${shortNumber(first.dose)}${unit} to ` +
      `${shortNumber(last.projection)} at ${shortNumber(last.dose)}${unit} (medians).`,
  ];
  const known = (value) => value !== null && value !== undefined;
  if (known(fit.trend)) said.push(`Trend (Spearman) ${shortNumber(fit.trend)}${known(fit.q) ? `, q ${shortNumber(fit.q)}` : ""}.`);
  if (known(fit.lowest_active_dose)) said.push(`Lowest active dose ${shortNumber(fit.lowest_active_dose)}${unit}.`);
  if (known(fit.ec50)) said.push(`EC50 ${shortNumber(fit.ec50)}${unit}.`);
  const { band } = dose;
  if (band) said.push(`Band: the middle 90 % of the negative controls, ${shortNumber(band.low)} to ${shortNumber(band.high)}.`);
  if (rows.some((row) => textOf(PERTURBATION, dose.well[row]) !== name)) said.push("Filled: wells of the chosen perturbation.");
  return said.join(" ");
}

function mediansByDose(rows) {
  const { dose } = report.focus;
  const groups = new Map();
  for (const row of rows) groups.set(dose.dose[row], [...(groups.get(dose.dose[row]) ?? []), dose.projection[row]]);
  return [...groups].sort(([a], [b]) => a - b).map(([value, places]) => ({ dose: value, projection: median(places) }));
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
}

async function drawDose(name, panel) {
  doseView?.finalize();
  doseView = null;
  const chart = panel.querySelector("[data-dose]");
  if (!chart) return;
  const { dose } = report.focus;
  const rows = doseRows(name);
  const points = rows.map((row) => {
    const well = dose.well[row];
    const isOwn = textOf(PERTURBATION, well) === name;
    return {
      name: textOf(PERTURBATION, well),
      dose: dose.dose[row],
      projection: dose.projection[row],
      fill: isOwn ? COLOURS[0] : "transparent",
      line: isOwn ? COLOURS[0] : GREY,
      shape: isOwn ? "circle" : "diamond",
      tooltip: describeWell(well, `dose ${shortNumber(dose.dose[row])}`, `place ${shortNumber(dose.projection[row])}`),
    };
  });
  const { band } = dose;
  const words = band && `negative controls, middle 90 %\n${shortNumber(band.low)} to ${shortNumber(band.high)}`;
  const layer = structuredClone(report.charts.dose_curve.layer).slice(band ? 0 : 1);
  const datasets = { points, medians: mediansByDose(rows), ...(band ? { band: [{ ...band, tooltip: words }] } : {}) };
  doseView = await draw(chart, "dose_curve", datasets, { layer }, { choose: "name" });
}
