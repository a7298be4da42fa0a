// Tables of sections: a button in the header sorts the rows, empty cells last.

const sectionCollator = new Intl.Collator("en", { numeric: true });

function comparedKeys(a, b, isNumeric, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return sign * (isNumeric ? Number(a) - Number(b) : sectionCollator.compare(a, b));
}

function sortRowsBy(header) {
  const isNumeric = header.classList.contains("numeric");
  const first = header.dataset.first;
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = header.getAttribute("aria-sort") === first ? other : first;
  for (const cell of header.parentElement.cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const body = header.closest("table").tBodies[0];
  const key = (row) => row.cells[header.cellIndex].dataset.sort;
  const rows = [...body.rows].sort((a, b) => comparedKeys(key(a), key(b), isNumeric, sign));
  body.append(...rows);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("table.sortable thead button");
  if (button) sortRowsBy(button.closest("th"));
});
highlight.listeners.push((name) => {
  for (const button of document.querySelectorAll("button.choose")) {
    button.setAttribute("aria-pressed", String(Boolean(name) && button.dataset.perturbation === name));
  }
});
