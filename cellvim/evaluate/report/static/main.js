// Start everything, and keep the highlight in sight and easy to drop.

function startHighlight() {
  const chip = document.getElementById("highlight");
  const name = document.getElementById("highlight-name");
  highlight.listeners.push((chosen) => {
    chip.hidden = !chosen;
    name.textContent = chosen;
  });
  document.getElementById("highlight-clear").addEventListener("click", () => highlight.set(""));
  document.addEventListener("click", (event) => {
    const chooser = event.target.closest(".choose");
    if (chooser) highlight.set(chooser.dataset.perturbation);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && highlight.name) highlight.set("");
  });
}

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

async function start() {
  startHighlight();
  startMontage();
  await startScores();
  await startMaps();
  await startPlates();
  for (const [key, starter] of Object.entries(sectionStarters)) await starter?.(report.sections[key]);
  document.documentElement.dataset.ready = "yes";
}

start();
