// Plates from above, coloured by a chosen measure on one scale for all of them; drawn as they come into sight.

const plateViews = new Map();
const notedMeasures = new Map();
const measureChoice = document.getElementById("measure-choice");
const plateChoice = document.getElementById("plate-choice");
const plateFigures = [...document.querySelectorAll("#plate-list > figure")];
const PLATES_AT_ONCE = 12;
const AXIS_PX = 26;
const CONTROL_GLYPHS = { negcon: "\u2212", poscon: "+", empty: "\u2205" };

const rowName = (row) => (row <= 26 ? String.fromCharCode(64 + row) : `A${String.fromCharCode(38 + row)}`);
const chosenMeasure = () => report.measures.find((measure) => measure.key === measureChoice.value);

const wellsByPlate = (() => {
  const category = categoryOf("Metadata_Plate");
  const found = report.plates.map(() => []);
  const number = new Map(report.plates.map((plate, place) => [plate.name, place]));
  category?.codes.forEach((code, well) => {
    if (code !== null && report.wells.row[well] !== null) found[number.get(category.names[code])]?.push(well);
  });
  return found;
})();

function cell(well, measure) {
  const value = measure.values[well];
  const span = measure.high - measure.low || 1;
  const share = value === null ? null : (value - measure.low) / span;
  const name = textOf(PERTURBATION, well);
  const isFocus = Boolean(highlight.name) && name === highlight.name;
  const isDimmed = Boolean(highlight.name) && !isFocus;
  return {
    name,
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
  const [top, bottom, left, right] = [Math.min(...rows), Math.max(...rows), Math.min(...columns), Math.max(...columns)];
  const places = [];
  for (let row = 1; row <= plate.rows; row += 1) {
    for (let column = 1; column <= plate.columns; column += 1) {
      const isHole = row >= top && row <= bottom && column >= left && column <= right;
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

function notePlate(element, number, measure) {
  // Which perturbation is chosen changes nothing in it.
  if (notedMeasures.get(number) === measure) return;
  notedMeasures.set(number, measure);
  const plate = report.plates[number];
  const known = wellsByPlate[number].filter((well) => measure.values[well] !== null);
  const places = known.map((well) => ({
    row: report.wells.row[well], column: report.wells.column[well], value: measure.values[well],
  }));
  const effects = plateEffects(plate, places);
  const words = known.length ? effectsInWords(effects) : "No well has a value.";
  element.parentElement.querySelector(".plate-note").textContent = words;
  const average = effects ? `, mean ${shortNumber(effects.mean)}` : "";
  describe(element, `Plate ${plate.name} from above, ${measure.label} of ${counted(known.length, "well")}${average}. ${words}`);
}

async function drawPlate(element) {
  const number = Number(element.dataset.plate);
  const measure = chosenMeasure();
  const wells = wellsByPlate[number].map((well) => cell(well, measure));
  notePlate(element, number, measure);
  if (plateViews.has(number)) return redraw(await plateViews.get(number), "wells", wells);
  const made = makePlate(element, number, wells);
  plateViews.set(number, made);
  return made;
}

async function makePlate(element, number, wells) {
  const plate = report.plates[number];
  const { width, height, glyphSize } = plateSize(element, plate);
  const grid = outlines(plate, wellsByPlate[number]);
  const view = await draw(element, "plate", { wells, grid }, { width, height }, { choose: "name" });
  await view.signal("glyphSize", glyphSize).runAsync();
  const resize = () => drawWhenSeen(view, element, () => resizePlate(element, plate, view));
  new ResizeObserver(resize).observe(element);
  return view;
}

function resizePlate(element, plate, view) {
  const { width, height, glyphSize } = plateSize(element, plate);
  if (width > 0 && Math.abs(width - view.width()) > 1) {
    view.width(width).height(height).signal("glyphSize", glyphSize).runAsync();
  }
}

const shownPlates = () =>
  plateFigures.filter((figure) => !figure.hidden).map((figure) => figure.querySelector("[data-plate]")).filter(Boolean);

// Only what has been drawn changes; what has not, is drawn when it comes into sight.
function refreshPlates() {
  const measure = chosenMeasure();
  document.getElementById("scale-low").textContent = shortNumber(measure.low);
  document.getElementById("scale-high").textContent = shortNumber(measure.high);
  const drawn = shownPlates().filter((element) => plateViews.has(Number(element.dataset.plate)));
  for (const element of drawn) notePlate(element, Number(element.dataset.plate), measure);
  return Promise.all(drawn.map((element) => drawWhenSeen(element, element, () => drawPlate(element))));
}

// One after the other while the reader does something else, so that a print has them all.
async function drawInTheBackground() {
  for (const element of shownPlates()) {
    if (plateViews.has(Number(element.dataset.plate))) continue;
    await new Promise((resolve) => { setTimeout(resolve, 30); });
    if (!element.parentElement.hidden) await drawPlate(element);
  }
  document.getElementById("plate-list").dataset.drawn = "yes";
}

function choosePlates() {
  delete document.getElementById("plate-list").dataset.drawn;
  const isFocus = plateChoice?.value === "focus";
  const first = Number(plateChoice?.value ?? 0);
  const holding = new Set(wellsOf(highlight.name).map(plateOf));
  let room = PLATES_AT_ONCE;
  plateFigures.forEach((figure, number) => {
    const isWanted = isFocus ? holding.has(report.plates[number].name) : number >= first;
    figure.hidden = !(isWanted && room > 0);
    room -= isWanted;
  });
  refreshPlates();
  return drawInTheBackground();
}

function startPlates() {
  if (!measureChoice) return Promise.resolve();
  measureChoice.addEventListener("change", refreshPlates);
  plateChoice?.addEventListener("change", choosePlates);
  highlight.listeners.push((name) => {
    const ofFocus = plateChoice?.querySelector("[value=focus]");
    if (ofFocus) ofFocus.disabled = !name;
    if (plateChoice?.value === "focus") {
      if (!name) plateChoice.value = "0";
      choosePlates();
    } else refreshPlates();
  });
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting && !plateViews.has(Number(target.dataset.plate))) drawPlate(target);
    }
  }, { rootMargin: "200px" });
  plateFigures.forEach((figure) => figure.querySelector("[data-plate]") && observer.observe(figure.querySelector("[data-plate]")));
  const drawn = choosePlates();
  return report.plates.length <= 4 ? drawn : Promise.resolve();
}
