// Start everything.

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

// Canvases keep the colours that they were drawn with, axes included.
function repaint() {
  for (const [task, view] of scoreViews) if (canvasViews.has(view)) scoreViews.delete(task);
  if (canvasViews.size) Promise.all([drawScores(), drawMaps()]);
}

async function start() {
  startMontage();
  await startScores();
  await startMaps();
  await startPlates();
  startFinder();
  for (const [key, starter] of Object.entries(sectionStarters)) await starter?.(report.sections[key]);
  startFocus();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  document.documentElement.dataset.ready = "yes";
}

start();
