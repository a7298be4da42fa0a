// Plates from above, coloured by a chosen measure on one scale for all of them.

const plateViews = new Map();
const measureChoice = document.getElementById("measure-choice");
const AXIS_PX = 26;
const CONTROL_GLYPHS = { negcon: "\u2212", poscon: "+", empty: "\u2205" };

const rowName = (row) => (row <= 26 ? String.fromCharCode(64 + row) : `A${String.fromCharCode(38 + row)}`);
const chosenMeasure = () => report.measures.find((measure) => measure.key === measureChoice.value);

function wellsOfPlate(number) {
  const plates = categoryOf("Metadata_Plate").codes;
  const place = categoryOf("Metadata_Plate").names.indexOf(report.plates[number].name);
  return [...plates.keys()].filter((well) => plates[well] === place && report.wells.row[well] !== null);
}

function cell(well, measure) {
  const value = measure.values[well];
  const span = measure.high - measure.low || 1;
  const share = value === null ? null : (value - measure.low) / span;
  const isFocus = Boolean(highlight.name) && textOf(PERTURBATION, well) === highlight.name;
  const isDimmed = Boolean(highlight.name) && !isFocus;
  return {
    row: rowName(report.wells.row[well]),
    column: report.wells.column[well],
    fill: share === null ? "currentColor" : viridis(share),
    opacity: (share === null ? 0.13 : 1) * (isDimmed ? 0.25 : 1),
    line: isFocus ? "currentColor" : "transparent",
    width: isFocus ? 2.5 : 0,
    glyph: CONTROL_GLYPHS[textOf("Metadata_ControlType", well)] ?? "",
    ink: share === null || isDimmed ? "currentColor" : share > 0.6 ? "#000" : "#fff",
    tooltip: describeWell(well, `${measure.label}: ${shortNumber(value)}`),
  };
}

// A hole among the wells in use is marked more strongly than the unused border.
function outlines(plate, wells) {
  const taken = new Set(wells.map((well) => `${report.wells.row[well]}/${report.wells.column[well]}`));
  const rows = wells.map((well) => report.wells.row[well]);
  const columns = wells.map((well) => report.wells.column[well]);
  const isWithin = (place, used) => place >= Math.min(...used) && place <= Math.max(...used);
  const places = [];
  for (let row = 1; row <= plate.rows; row += 1) {
    for (let column = 1; column <= plate.columns; column += 1) {
      const isHole = isWithin(row, rows) && isWithin(column, columns);
      const edge = taken.has(`${row}/${column}`) ? 0 : isHole ? 0.75 : 0.2;
      places.push({ row: rowName(row), column, edge });
    }
  }
  return places;
}

function plateSize(element, plate) {
  const width = element.clientWidth;
  const side = (width - AXIS_PX) / plate.columns;
  return { width, height: Math.round(side * plate.rows + AXIS_PX), glyphSize: Math.min(15, Math.max(6, side * 0.62)) };
}

async function drawPlates() {
  const measure = chosenMeasure();
  document.getElementById("scale-low").textContent = shortNumber(measure.low);
  document.getElementById("scale-high").textContent = shortNumber(measure.high);
  for (const element of document.querySelectorAll("[data-plate]")) {
    const number = Number(element.dataset.plate);
    const members = wellsOfPlate(number);
    const wells = members.map((well) => cell(well, measure));
    if (plateViews.has(number)) await redraw(plateViews.get(number), "wells", wells);
    else plateViews.set(number, await drawPlate(element, number, members, wells));
  }
}

async function drawPlate(element, number, members, wells) {
  const plate = report.plates[number];
  const { width, height, glyphSize } = plateSize(element, plate);
  const view = await draw(element, "plate", { wells, grid: outlines(plate, members) }, { width, height });
  await view.signal("glyphSize", glyphSize).runAsync();
  new ResizeObserver(() => resizePlate(element, plate, view)).observe(element);
  return view;
}

function resizePlate(element, plate, view) {
  const { width, height, glyphSize } = plateSize(element, plate);
  if (width > 0 && Math.abs(width - view.width()) > 1) {
    view.width(width).height(height).signal("glyphSize", glyphSize).runAsync();
  }
}

function startPlates() {
  if (!measureChoice) return Promise.resolve();
  measureChoice.addEventListener("change", drawPlates);
  highlight.listeners.push(drawPlates);
  return drawPlates();
}
