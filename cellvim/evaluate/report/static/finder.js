// "Find a perturbation": a text field with a list of what matches, by keyboard or mouse.

const finder = document.getElementById("finder");
const finderList = document.getElementById("finder-list");
const MOST_OPTIONS = 40;
let activeOption = -1;

// What else a perturbation goes by: its target or mechanism.
function labelsOf(name) {
  const code = categoryOf(PERTURBATION)?.names.indexOf(name);
  return report.focus.labels.flatMap(({ label, values }) =>
    values[code] === undefined ? [] : [{ label, value: values[code] }]);
}

const searchText = (() => {
  const codes = new Map((categoryOf(PERTURBATION)?.names ?? []).map((name, code) => [name, code]));
  return new Map(everyName.map((name) => {
    const labels = report.focus.labels.map(({ values }) => values[codes.get(name)] ?? "");
    return [name, [name, ...labels].join("\n").toLowerCase()];
  }));
})();

const matchesName = (name, wanted) => (searchText.get(name) ?? name.toLowerCase()).includes(wanted);

function matching(text) {
  const wanted = text.trim().toLowerCase();
  const found = everyName.filter((name) => matchesName(name, wanted));
  const rank = (name) => (name.toLowerCase().startsWith(wanted) ? 0 : name.toLowerCase().includes(wanted) ? 1 : 2);
  return found.sort((a, b) => rank(a) - rank(b));
}

function option(name, number) {
  const made = element("li", name);
  made.id = `finder-option-${number}`;
  made.dataset.perturbation = name;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", "false");
  const labels = labelsOf(name).slice(0, 1).map(({ value }) => value);
  if (labels.length) made.append(" ", element("span", labels.join(", "), "detail"));
  return made;
}

function openFinder() {
  const found = matching(finder.value);
  const options = found.slice(0, MOST_OPTIONS).map(option);
  if (found.length > MOST_OPTIONS) {
    const more = element("li", `${(found.length - MOST_OPTIONS).toLocaleString("en")} more: type more letters`, "none");
    more.setAttribute("role", "presentation");
    options.push(more);
  }
  if (!found.length) {
    const none = element("li", "No perturbation is called so", "none");
    none.setAttribute("role", "presentation");
    options.push(none);
  }
  finderList.replaceChildren(...options);
  finderList.hidden = false;
  finder.setAttribute("aria-expanded", "true");
  activate(-1);
}

function closeFinder() {
  finderList.hidden = true;
  finder.setAttribute("aria-expanded", "false");
  finder.removeAttribute("aria-activedescendant");
  activeOption = -1;
}

function activate(number) {
  const options = [...finderList.querySelectorAll("[role=option]")];
  activeOption = options.length ? Math.min(Math.max(number, -1), options.length - 1) : -1;
  options.forEach((made, place) => made.setAttribute("aria-selected", String(place === activeOption)));
  const active = options[activeOption];
  if (active) finder.setAttribute("aria-activedescendant", active.id);
  else finder.removeAttribute("aria-activedescendant");
  active?.scrollIntoView({ block: "nearest" });
}

function takeOption(made) {
  if (!made) return;
  finder.value = "";
  closeFinder();
  highlight.set(made.dataset.perturbation);
}

function finderKey(event) {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (finderList.hidden) openFinder();
    activate(activeOption + (event.key === "ArrowDown" ? 1 : -1));
  } else if (event.key === "Enter") {
    const options = [...finderList.querySelectorAll("[role=option]")];
    if (!finderList.hidden) takeOption(options[Math.max(activeOption, 0)]);
  } else if (event.key === "Escape" && !finderList.hidden) {
    closeFinder();
    event.stopPropagation();
  } else return;
  event.preventDefault();
}

function startFinder() {
  finder.addEventListener("input", openFinder);
  finder.addEventListener("focus", openFinder);
  finder.addEventListener("click", openFinder);
  finder.addEventListener("keydown", finderKey);
  finder.addEventListener("blur", closeFinder);
  // Before the field loses the focus, and with it the list.
  finderList.addEventListener("mousedown", (event) => {
    event.preventDefault();
    takeOption(event.target.closest("[role=option]"));
  });
}
