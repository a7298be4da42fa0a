// mAP against -log10 p, and the table of perturbations: choose, filter, sort.

const scoreTable = document.getElementById("perturbation-table");
const scoreBody = scoreTable.tBodies[0];
const scoreRows = [...scoreBody.rows];
const scoreViews = new Map();
let chosenTable = 0;

function scorePoints(task) {
  const scores = report.scores[task].filter((score) => score.table === report.tables[chosenTable]);
  return scores.map((score) => {
    const isDimmed = highlight.name && score.name !== highlight.name;
    return {
      map: score.map,
      certainty: -Math.log10(Math.max(score.p, 1e-300)),
      fill: score.is_significant ? COLOURS[0] : "transparent",
      line: score.is_significant ? COLOURS[0] : GREY,
      shape: score.is_significant ? "circle" : "diamond",
      opacity: isDimmed ? 0.15 : 0.85,
      tooltip:
        `${score.name}\nmAP ${score.map.toFixed(2)}\np ${shortNumber(score.p)}, q ${shortNumber(score.q)}\n` +
        `${score.replicates} replicates`,
      score,
    };
  });
}

// Benjamini-Hochberg with k of m found: p up to k/m of the rate.
function threshold(points) {
  const found = points.filter((point) => point.score.is_significant).length;
  if (!points.length) return [];
  return [{ certainty: -Math.log10((Math.max(found, 1) / points.length) * 0.05), label: "q = 0.05" }];
}

// What p could become at best, which differs between perturbations of different replicates.
function floorNote(points) {
  const floors = points.map((point) => point.score.smallest_p).filter((floor) => floor !== null);
  if (!floors.length) return "";
  const [low, high] = [Math.min(...floors), Math.max(...floors)].map(shortNumber);
  const beyond = floors.filter((floor) => floor >= 0.05).length;
  const range = low === high ? low : `${low} to ${high}`;
  const warning = beyond ? ` ${beyond} of ${points.length} cannot reach p < 0.05.` : "";
  return ` Smallest reachable p: ${range}.${warning}`;
}

function noteScores(task, points) {
  const found = points.filter((point) => point.score.is_significant).length;
  const note = document.querySelector(`.score-note[data-task="${task}"]`);
  note.textContent = `${found} of ${points.length} above the line (filled).${floorNote(points)}`;
}

async function drawScores() {
  for (const element of document.querySelectorAll("[data-scores]")) {
    const task = element.dataset.scores;
    const points = scorePoints(task);
    noteScores(task, points);
    if (scoreViews.has(task)) {
      const view = scoreViews.get(task);
      await redraw(view.data("threshold", threshold(points)), "points", points);
    } else {
      scoreViews.set(task, await draw(element, "scores", { points, threshold: threshold(points) }));
    }
  }
}

function filterScores() {
  const wanted = document.getElementById("perturbation-filter").value.trim().toLowerCase();
  const onlySignificant = document.getElementById("significant-only").checked;
  const ofTable = scoreRows.filter((row) => Number(row.dataset.table) === chosenTable);
  scoreRows.forEach((row) => { row.hidden = true; });
  const shown = ofTable.filter((row) => {
    const matches = row.cells[0].dataset.sort.includes(wanted);
    return matches && (!onlySignificant || row.dataset.significant === "1");
  });
  shown.forEach((row) => { row.hidden = false; });
  document.getElementById("row-count").textContent = `${shown.length} of ${ofTable.length} shown`;
}

function compareCells(a, b, isNumeric, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return sign * (isNumeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
}

function sortScores(header) {
  const isNumeric = header.classList.contains("numeric");
  const first = header.dataset.first;
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = header.getAttribute("aria-sort") === first ? other : first;
  for (const cell of header.parentElement.cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const key = (row) => row.cells[header.cellIndex].dataset.sort;
  scoreRows.sort((a, b) => compareCells(key(a), key(b), isNumeric, sign));
  scoreBody.append(...scoreRows);
}

function startScores() {
  scoreTable.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) sortScores(button.closest("th"));
  });
  scoreBody.addEventListener("click", (event) => {
    const button = event.target.closest("button.focus");
    if (button) highlight.set(button.textContent);
  });
  document.getElementById("perturbation-filter").addEventListener("input", filterScores);
  document.getElementById("significant-only").addEventListener("change", filterScores);
  document.getElementById("all-columns").addEventListener("change", (event) => {
    scoreTable.classList.toggle("brief", !event.target.checked);
    for (const group of scoreTable.querySelectorAll(".task")) group.colSpan = event.target.checked ? 4 : 2;
  });
  document.getElementById("table-choice")?.addEventListener("change", (event) => {
    chosenTable = Number(event.target.value);
    filterScores();
    drawScores();
  });
  highlight.listeners.push((name) => {
    for (const button of scoreBody.querySelectorAll("button.focus")) {
      button.setAttribute("aria-pressed", String(button.textContent === name));
    }
    drawScores();
  });
  filterScores();
  return drawScores();
}
