// What follows the choice is drawn at once where it is in sight; the rest waits until the page is idle, in its last state.

const SIGHT_PX = 100;
const PAUSE_MS = 15;
const waiting = new Map();
let isWorkingOff = false;

function isInSight(element) {
  const { top, bottom, width } = element.getBoundingClientRect();
  return width > 0 && bottom > -SIGHT_PX && top < window.innerHeight + SIGHT_PX;
}

// A later drawing of the same key replaces one that still waits.
function drawWhenSeen(key, element, drawing) {
  waiting.delete(key);
  if (isInSight(element)) return drawing();
  waiting.set(key, { element, drawing });
  workOff();
  return Promise.resolve();
}

async function workOff() {
  if (isWorkingOff) return;
  isWorkingOff = true;
  try {
    while (waiting.size) {
      await new Promise((resolve) => { setTimeout(resolve, PAUSE_MS); });
      const inSight = [...waiting].find(([, { element }]) => isInSight(element));
      const [key, { element, drawing }] = inSight ?? [...waiting][0] ?? [null, {}];
      waiting.delete(key);
      if (element?.isConnected) await drawing();
    }
  } finally {
    isWorkingOff = false;
  }
}

// Paper shows everything.
window.addEventListener("beforeprint", () => {
  const all = [...waiting.values()];
  waiting.clear();
  for (const { drawing } of all) drawing();
});
