// Our own tooltip: plain text in one element, never HTML.

const tooltip = document.getElementById("tooltip");

function showTooltip(_handler, event, _item, value) {
  if (value === null || value === undefined || value === "") {
    tooltip.hidden = true;
    return;
  }
  tooltip.textContent = String(value);
  tooltip.hidden = false;
  const gap = 14;
  const left = Math.min(event.clientX + gap, document.documentElement.clientWidth - tooltip.offsetWidth - 4);
  const below = event.clientY + gap + tooltip.offsetHeight < window.innerHeight;
  const top = below ? event.clientY + gap : event.clientY - gap - tooltip.offsetHeight;
  tooltip.style.left = `${Math.max(4, left)}px`;
  tooltip.style.top = `${Math.max(4, top)}px`;
}

window.addEventListener("scroll", () => { tooltip.hidden = true; }, { passive: true });
