// What is known of one perturbation: scores, wells and pictures, what resembles it, its doses.

const MOST_CARDS = 48;

function panelContent(name) {
  const parts = [factsOf(name), scoresOf(name), wellsPart(name), dosePart(name), similarPart(name), nearestPart(name)];
  return parts.flat().filter(Boolean);
}

function part(title, ...children) {
  const made = element("div", "", "part");
  made.append(element("h3", title), ...children.filter(Boolean));
  return made;
}

// One sentence: what was shown, and how surely.
function verdict(name) {
  const row = leadingRow.get(name);
  const judged = TASKS.map((task) => [task, row === undefined ? null : scoreOf(row, task)]).filter(([, score]) => score);
  if (!judged.length) return "Not judged: no retrieval task tested it.";
  const found = judged.filter(([, score]) => score.is_significant).map(([task]) => report.tasks[task].claim);
  const [, lead] = judged[0];
  const sure = `mAP ${lead.map.toFixed(2)}, p ${probability(lead.p)}, q ${probability(lead.q)}`;
  if (found.length) return `Shown (q < 0.05): it ${found.join("; it ")}. ${report.tasks[judged[0][0]].label}: ${sure}.`;
  const cannot = lead.smallest_p !== null && lead.smallest_p >= 0.05 ? " It could not reach p < 0.05, whatever it does." : "";
  const [ownRow] = doseRows(name);
  const fit = ownRow === undefined ? undefined : report.focus.dose.fits[report.focus.dose.compounds[report.focus.dose.compound[ownRow]]];
  const rises = fit?.q !== null && fit?.q < 0.05 ? ` But its compound rises with the dose (q ${probability(fit.q)}).` : "";
  return `Not shown to do anything by itself (${sure}).${cannot}${rises}`;
}

function factsOf(name) {
  const wells = wellsOf(name);
  const control = wells.length ? textOf("Metadata_ControlType", wells[0]) : null;
  const about = [
    counted(wells.length, "well"),
    `on ${counted(new Set(wells.map(plateOf)).size, "plate")}`,
    control === "negcon" ? "(negative control)" : control === "poscon" ? "(positive control)" : "",
  ];
  const line = element("p", about.filter(Boolean).join(" "), "detail");
  const labels = element("p", labelsOf(name).map(({ label, value }) => `${label}: ${value}`).join("; "), "detail");
  const said = control === "negcon" ? "What the others are compared with." : verdict(name);
  return [element("p", said, "verdict"), line, labels.textContent ? labels : null];
}

function scoresOf(name) {
  const row = leadingRow.get(name);
  const judged = row === undefined ? [] : TASKS.map((task) => [task, scoreOf(row, task)]).filter(([, score]) => score);
  const replicating = replicatingOf(name);
  if (!judged.length) return replicating;
  const cells = judged.map(([task, score]) => [
    report.tasks[task].label,
    score.map.toFixed(2),
    probability(score.p),
    `${score.is_significant ? "\u2713 " : ""}${probability(score.q)}`,
  ]);
  const table = plainTable(["", "mAP", "p", "q"], cells);
  const replicates = perturbations.replicates[row];
  const wells = replicates === null ? "" : `From ${counted(replicates, "well")}; `;
  const floor = judged[0][1].smallest_p;
  const note = floor === null ? null : element("p", `${wells}smallest reachable p ${shortNumber(floor)}.`, "detail");
  return [part("How strong, and how sure?", table, note), replicating];
}

function replicatingOf(name) {
  const code = categoryOf(PERTURBATION)?.names.indexOf(name);
  const found = report.focus.replicating[code];
  if (!found || found[0] === null) return null;
  const [similarity, limit, isReplicating] = found;
  const against = limit === null ? "" : `, ${isReplicating ? "beyond" : "within"} what random wells do (threshold ${shortNumber(limit)})`;
  return element("p", `Its replicates correlate with ${shortNumber(similarity)} (median pair)${against}.`);
}

function plainTable(heads, rows) {
  const table = element("table", "", "plain");
  const head = table.createTHead().insertRow();
  heads.forEach((text, place) => {
    const cell = element(text ? "th" : "td", text, place ? "numeric" : "");
    if (text) cell.scope = "col";
    head.append(cell);
  });
  const body = table.createTBody();
  for (const texts of rows) {
    const row = body.insertRow();
    texts.forEach((text, place) => {
      const cell = element(place ? "td" : "th", text, place ? "numeric" : "");
      if (!place) cell.scope = "row";
      row.append(cell);
    });
  }
  return table;
}

function wellsPart(name) {
  const wells = wellsOf(name);
  if (!wells.length) return null;
  const pictures = report.wells.picture;
  const isPictured = (well) => pictures.length > 0 && pictures[well] !== null;
  const sorted = [...wells].sort((a, b) => isPictured(b) - isPictured(a));
  const shown = sorted.slice(0, MOST_CARDS);
  const hasPictures = shown.some(isPictured);
  const list = element("ul", "", hasPictures ? "cards" : "places");
  list.append(...shown.map((well) => wellCard(well, isPictured(well) ? pictures[well] : null, hasPictures)));
  const without = wells.length - wells.filter(isPictured).length;
  const notes = [];
  if (wells.length > shown.length) notes.push(`${shown.length} of ${counted(wells.length, "well")} listed.`);
  if (pictures.length && without) notes.push(`${without} without a picture${report.pictures_left_out ? " in this file" : ""}.`);
  const toPlates = document.getElementById("plates") ? jumpTo("plates", "Show them on the plates") : null;
  return part("Its wells", list, notes.length ? element("p", notes.join(" "), "detail") : null, toPlates);
}

function wellCard(well, picture, hasPictures) {
  const item = element("li");
  if (picture !== null) {
    const image = element("img", "", "picture");
    image.width = 96;
    image.height = 96;
    image.alt = `Well ${report.wells.name[well]} of plate ${plateOf(well)}`;
    showPicture(image, picture);
    item.append(image);
  } else if (hasPictures) item.append(element("span", "no picture", "picture absent"));
  const score = report.measures.find((measure) => measure.key === "activity_ap")?.values[well] ?? null;
  item.append(
    element("b", report.wells.name[well]), " ", element("span", plateOf(well) ?? "", "plate"),
    score === null ? "" : element("span", ` AP ${score.toFixed(2)}`, "detail"),
  );
  return item;
}

function jumpTo(id, text) {
  const button = element("button", text, "jump");
  button.type = "button";
  button.addEventListener("click", () => document.getElementById(id).scrollIntoView());
  return button;
}

function similarPart(name) {
  const names = categoryOf(PERTURBATION)?.names ?? [];
  const similar = report.focus.similar[names.indexOf(name)] ?? [];
  if (!similar.length) return null;
  const list = element("ol", "", "similar");
  for (const [code, cosine] of similar) {
    const item = element("li");
    const labels = labelsOf(names[code]).slice(0, 1).map(({ value }) => ` ${value}`).join("");
    item.append(chooser(names[code]), element("span", ` ${cosine.toFixed(2)}`, "number"), element("span", labels, "detail"));
    list.append(item);
  }
  return part("Most similar perturbations", element("p", "Cosine of the means over wells; 1 is the same direction.", "detail"), list);
}

function nearestPart(name) {
  const row = [...document.querySelectorAll("#montage > li")].find((each) => each.dataset.name === name);
  if (!row) return null;
  const strip = row.querySelector(".strip").cloneNode(true);
  strip.removeAttribute("tabindex");
  if (row.parentElement.classList.contains("no-pictures")) strip.classList.add("no-pictures");
  return part("Wells nearest to its best well", strip);
}
