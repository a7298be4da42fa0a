// Wells and the wells most like them; pictures are stored once and shown wherever they belong.

function startMontage() {
  for (const image of document.querySelectorAll("img[data-picture]")) {
    showPicture(image, Number(image.dataset.picture));
  }
  const list = document.getElementById("montage");
  if (!list) return;
  const all = document.getElementById("montage-all");
  all?.addEventListener("click", () => {
    list.classList.add("all");
    all.parentElement.remove();
    list.querySelector("[data-late]").scrollIntoView({ block: "nearest" });
  });
  highlight.listeners.push((name) => {
    const rows = [...list.children];
    const isFound = name && rows.some((row) => row.dataset.name === name);
    rows.forEach((row) => {
      row.classList.toggle("chosen", Boolean(isFound) && row.dataset.name === name);
      row.classList.toggle("passed-over", Boolean(isFound) && row.dataset.name !== name);
    });
  });
}
