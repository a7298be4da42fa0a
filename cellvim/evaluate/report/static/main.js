// Start everything.

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

async function start() {
  startMontage();
  await startScores();
  await startMaps();
  await startPlates();
  startFinder();
  for (const [key, starter] of Object.entries(sectionStarters)) await starter?.(report.sections[key]);
  startFocus();
  document.documentElement.dataset.ready = "yes";
}

start();
