// In a frame: opens a session, tells the page around it how large it is and what has happened, and makes trips to
// providers in a window of their own.
const said = document.body.dataset;
const main = document.querySelector("main");
const allowed = (said.origins ?? "").split(" ");
let around = "";
const tell = (message) => { if (around) parent.postMessage(message, around); };
const size = () => tell({ evergrant: "size", height: Math.ceil(document.documentElement.getBoundingClientRect().height),
  width: Math.ceil(main.getBoundingClientRect().width) + 4 });
const happened = (name, app) => tell({ evergrant: "event", name, app });

if ("close" in said) close();
const entering = document.querySelector("[data-enter]");
if (entering) entering.submit();

addEventListener("message", ({ source, origin, data }) => {
  if (entering || source !== parent || data?.evergrant !== "hello" || !allowed.includes(origin)) return;
  around = origin;
  if (data.light) document.documentElement.dataset.mode ??= "light";
  size();
  new ResizeObserver(size).observe(document.documentElement);
  if (said.event) happened(said.event, said.app);
  const here = new URL(location);
  for (const name of ["trip", "ended", "of", "told"]) here.searchParams.delete(name);
  history.replaceState(null, "", here);
});

let underWay = false;
const show = (form, selector, text) => {
  const place = form.querySelector(selector) ?? document.querySelector(selector);
  if (!place) return;
  if (text) place.textContent = text;
  place.hidden = false;
};

addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-window]")) return;
  event.preventDefault();
  const app = form.elements.app.value;
  const win = open("about:blank", "_blank", "popup,width=560,height=760");
  if (win) win.opener = null; // the provider gets no hold of this page
  const answer = await fetch(form.action,
    { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" } });
  if (!answer.ok) {
    win?.close();
    if (answer.status === 404) return location.reload();
    happened("failed", app);
    return show(form, "[data-trouble]", (await answer.json()).say);
  }
  const { url, trip } = await answer.json();
  if (win) win.location.replace(url);
  else open(url, "_blank", "popup,width=560,height=760,noopener");
  show(form, "[data-waiting]");
  underWay = true;
  watch(trip, app);
});

async function watch(trip, app) {
  const answer = await fetch(`${said.base}/trips/${trip}`, { headers: { Accept: "application/json" } }).catch(() => null);
  if (answer?.status === 404) return location.reload();
  const state = answer?.ok ? (await answer.json()).state : "open";
  if (state === "open") return setTimeout(() => watch(trip, app), 1500);
  happened(state, app);
  const here = new URL(location);
  here.searchParams.set("trip", trip);
  location.replace(here);
}

// Elsewhere something may have changed meanwhile.
let left = 0;
addEventListener("visibilitychange", () => {
  if (document.hidden) left = Date.now();
  else if (left && Date.now() - left > 60000 && !underWay) location.reload();
});
