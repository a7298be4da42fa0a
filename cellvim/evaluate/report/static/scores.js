// mAP against -log10 p, a chart per task.

const scoreViews = new Map();
const scoresShown = new Map();

function scorePoints(task) {
  const points = [];
  for (let row = 0; row < perturbations.name.length; row += 1) {
    const score = perturbations.table[row] === chosenTable ? scoreOf(row, task) : null;
    if (score === null) continue;
    const isFocus = score.name === highlight.name;
    points.push({
      name: score.name,
      map: score.map,
      certainty: -Math.log10(Math.max(score.p, 1e-300)),
      fill: score.is_significant ? COLOURS[0] : "transparent",
      line: isFocus ? "currentColor" : score.is_significant ? COLOURS[0] : GREY,
      shape: score.is_significant ? "circle" : "diamond",
      opacity: highlight.name && !isFocus ? 0.15 : isFocus ? 1 : 0.85,
      size: isFocus ? 160 : 75,
      tooltip:
        `${score.name}\nmAP ${score.map.toFixed(2)}\np ${shortNumber(score.p)}, q ${shortNumber(score.q)}\n` +
        `${score.replicates} replicates`,
      score,
    });
  }
  return points.sort((a, b) => a.map - b.map || a.certainty - b.certainty);
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

function noteScores(element, task, points) {
  const found = points.filter((point) => point.score.is_significant).length;
  const finding = `${found} of ${points.length} above the line (filled).${floorNote(points)}`;
  document.querySelector(`.score-note[data-task="${task}"]`).textContent = finding;
  const best = points.at(-1);
  const middle = points[Math.floor(points.length / 2)];
  const strongest = best ? ` Strongest: ${best.name}, mAP ${best.map.toFixed(2)}; median ${middle.map.toFixed(2)}.` : "";
  describe(
    element,
    `${report.tasks[task].label}, mean average precision against minus log10 p: ${found} of ` +
      `${counted(points.length, "perturbation")} lie above the line where q is 0.05.${strongest} ` +
      "The table below holds the same numbers.",
  );
}

async function drawScores() {
  for (const element of document.querySelectorAll("[data-scores]")) {
    const isDrawn = scoreViews.has(element.dataset.scores);
    await (isDrawn ? drawWhenSeen(element, element, () => drawScore(element)) : drawScore(element));
  }
}

async function drawScore(element) {
  const task = element.dataset.scores;
  const points = scorePoints(task);
  scoresShown.set(task, points);
  noteScores(element, task, points);
  if (!points.length) return;
  if (scoreViews.has(task)) {
    const view = scoreViews.get(task);
    await redraw(view.data("threshold", threshold(points)), "points", points);
  } else {
    const datasets = { points, threshold: threshold(points) };
    scoreViews.set(task, await draw(element, "scores", datasets, {}, { choose: "name" }));
    walkable(element, () => scoreViews.get(task), () => scoresShown.get(task), (point) => [point.map, point.certainty]);
  }
}

function startScores() {
  startTable();
  document.getElementById("table-choice")?.addEventListener("change", (event) => {
    chosenTable = Number(event.target.value);
    showRows();
    drawScores();
  });
  highlight.listeners.push(drawScores);
  return drawScores();
}
