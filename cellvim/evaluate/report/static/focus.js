// The focus panel: opened by choosing a perturbation anywhere, kept in the page's address, closed by Escape.

const FRAGMENT = "#focus=";
const focusPanel = document.getElementById("focus");
const focusTitle = document.getElementById("focus-title");
const focusBody = document.getElementById("focus-body");
let opener = null;

function nameInAddress() {
  if (!location.hash.startsWith(FRAGMENT)) return "";
  try {
    const name = decodeURIComponent(location.hash.slice(FRAGMENT.length));
    return everyName.includes(name) ? name : "";
  } catch {
    return "";
  }
}

function rememberInAddress(name) {
  if (nameInAddress() === name) return;
  const place = name ? `${FRAGMENT}${encodeURIComponent(name)}` : location.pathname + location.search;
  history.pushState(null, "", place);
}

function openPanel(name, { before, isFromAddress }) {
  if (!before) opener = document.activeElement === document.body ? null : document.activeElement;
  focusTitle.textContent = name;
  focusBody.replaceChildren(...panelContent(name));
  for (const image of focusBody.querySelectorAll("img[data-picture]")) showPicture(image, Number(image.dataset.picture));
  const wasHidden = focusPanel.hidden;
  focusPanel.hidden = false;
  focusPanel.scrollTop = 0;
  document.documentElement.dataset.focus = "open";
  if (wasHidden) setTimeout(fitCharts);
  if (!isFromAddress) focusTitle.focus({ preventScroll: true });
  say(`${name}: ${verdict(name)}`);
  return drawDose(name, focusPanel);
}

function closePanel(isFromAddress) {
  if (focusPanel.hidden) return;
  const wasInside = focusPanel.contains(document.activeElement);
  focusPanel.hidden = true;
  delete document.documentElement.dataset.focus;
  setTimeout(fitCharts);
  if (wasInside && !isFromAddress) {
    const target = opener?.isConnected && opener !== finder ? opener : scoreTable.querySelector("button.choose");
    (target ?? finder).focus({ preventScroll: true });
  }
  opener = null;
  say("Nothing is chosen.");
}

// A link to a part of the page keeps the choice in the address.
function followLinks(event) {
  const link = event.target.closest('a[href^="#"]');
  if (!link || !highlight.name) return;
  const target = document.getElementById(link.getAttribute("href").slice(1));
  if (!target) return;
  event.preventDefault();
  target.scrollIntoView();
}

function startFocus() {
  // First of all listeners, as charts are narrower beside the panel.
  highlight.listeners.unshift((name, how) => {
    if (name) openPanel(name, how);
    else closePanel(how.isFromAddress);
    if (!how.isFromAddress) rememberInAddress(name);
  });
  document.getElementById("focus-close").addEventListener("click", () => highlight.set(""));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && highlight.name) highlight.set("");
  });
  document.addEventListener("click", (event) => {
    followLinks(event);
    const chosen = event.target.closest(".choose");
    if (!chosen) return;
    const isPressed = chosen.getAttribute("aria-pressed") === "true";
    highlight.set(isPressed ? "" : chosen.dataset.perturbation);
  });
  window.addEventListener("popstate", () => highlight.set(nameInAddress(), { isFromAddress: true }));
  const named = nameInAddress();
  if (named) highlight.set(named, { isFromAddress: true });
}
