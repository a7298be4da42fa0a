// The table of perturbations: rows are made as they are needed, filtered and sorted.

const scoreTable = document.getElementById("perturbation-table");
const scoreBody = scoreTable.tBodies[0];
const rowTemplate = document.getElementById("perturbation-row").content.firstElementChild;
const nameFilter = document.getElementById("perturbation-filter");
const moreRows = document.getElementById("more-rows");
const ROWS_AT_ONCE = 200;
const madeRows = new Map();
const collator = new Intl.Collator("en", { numeric: true });
let chosenTable = 0;
let rowsWanted = ROWS_AT_ONCE;
let order = { key: null, sign: 1 };

const nameOfRow = (row) => perturbations.names[perturbations.name[row]];
const isFound = (row) => TASKS.some((task) => scoreOf(row, task)?.is_significant);

function probability(value) {
  if (value === null) return "\u2013";
  return value >= 0.001 ? value.toFixed(3) : value.toExponential(1);
}

const CELLS = {
  map: (cell, value) => {
    cell.textContent = value === null ? "\u2013" : value.toFixed(2);
    if (value === null) return;
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    bar.setAttribute("class", "bar");
    bar.setAttribute("aria-hidden", "true");
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    rect.setAttribute("width", `${100 * Math.min(Math.max(value, 0), 1)}%`);
    rect.setAttribute("height", "4");
    bar.append(rect);
    cell.append(bar);
  },
  normalized_map: (cell, value) => { cell.textContent = value === null ? "\u2013" : value.toFixed(2); },
  p: (cell, value) => { cell.textContent = probability(value); },
  q: (cell, value) => {
    cell.textContent = probability(value);
    if (value === null || value >= 0.05) return;
    const mark = element("span", "\u2713", "yes");
    mark.setAttribute("aria-hidden", "true");
    cell.prepend(mark, element("span", "significant", "hidden"), " ");
  },
  replicates: (cell, value) => { cell.textContent = value === null ? "\u2013" : value.toLocaleString("en"); },
};
CELLS.plates = CELLS.replicates;

// `activity/map` or `plates`: what a column holds.
function valueOf(row, key) {
  if (key === "name") return nameOfRow(row);
  const [task, kind] = key.split("/");
  return kind ? perturbations.scores[task][kind][row] : perturbations[key][row];
}

function makeRow(row) {
  const made = rowTemplate.cloneNode(true);
  const button = made.querySelector("button");
  button.textContent = nameOfRow(row);
  button.dataset.perturbation = nameOfRow(row);
  const image = made.querySelector("img");
  const picture = perturbations.picture[row];
  if (image && picture !== null) showPicture(image, picture);
  else image?.remove();
  for (const cell of made.querySelectorAll("td")) {
    const { key } = cell.dataset;
    CELLS[key.split("/").at(-1)](cell, valueOf(row, key));
  }
  return made;
}

function rowElement(row) {
  if (!madeRows.has(row)) madeRows.set(row, makeRow(row));
  const made = madeRows.get(row);
  made.querySelector("button").setAttribute("aria-pressed", String(nameOfRow(row) === highlight.name));
  return made;
}

function compareRows(a, b) {
  const [first, second] = [valueOf(a, order.key), valueOf(b, order.key)];
  if (first === null || second === null) return (first === null) - (second === null);
  return order.sign * (order.key === "name" ? collator.compare(first, second) : first - second);
}

function showRows() {
  const wanted = nameFilter.value.trim().toLowerCase();
  const onlySignificant = document.getElementById("significant-only").checked;
  const ofTable = [...perturbations.name.keys()].filter((row) => perturbations.table[row] === chosenTable);
  const found = ofTable.filter((row) => matchesName(nameOfRow(row), wanted) && (!onlySignificant || isFound(row)));
  if (order.key) found.sort(compareRows);
  const shown = found.slice(0, rowsWanted);
  scoreBody.replaceChildren(...shown.map(rowElement));
  moreRows.hidden = shown.length === found.length;
  const left = shown.length < found.length ? ` (${found.length.toLocaleString("en")} match)` : "";
  document.getElementById("row-count").textContent =
    `${shown.length.toLocaleString("en")} of ${ofTable.length.toLocaleString("en")} shown${left}`;
}

function sortRows(header) {
  const first = header.dataset.first;
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = header.getAttribute("aria-sort") === first ? other : first;
  for (const cell of header.parentElement.cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  order = { key: header.dataset.key, sign: direction === "ascending" ? 1 : -1 };
  showRows();
}

function startTable() {
  scoreTable.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) sortRows(button.closest("th"));
  });
  nameFilter.addEventListener("input", () => { rowsWanted = ROWS_AT_ONCE; showRows(); });
  document.getElementById("significant-only").addEventListener("change", showRows);
  moreRows.addEventListener("click", () => { rowsWanted += ROWS_AT_ONCE; showRows(); });
  document.getElementById("all-columns").addEventListener("change", (event) => {
    scoreTable.classList.toggle("brief", !event.target.checked);
    for (const group of scoreTable.querySelectorAll(".task")) group.colSpan = event.target.checked ? 4 : 2;
  });
  highlight.listeners.push(() => {
    for (const button of scoreBody.querySelectorAll("button.choose")) {
      button.setAttribute("aria-pressed", String(button.dataset.perturbation === highlight.name));
    }
  });
  showRows();
}
