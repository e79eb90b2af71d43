// Conveniences only: every page works without this file. No eval, no inline style, and HTML only from our own origin.
const policy = globalThis.trustedTypes?.createPolicy("evergrant", { createHTML: (text) => text });
const trusted = (text) => (policy ? policy.createHTML(text) : text);
const parse = (text) => new DOMParser().parseFromString(trusted(text), "text/html");
const say = (text) => { document.getElementById("say").textContent = text; };

// Copy: <button data-copy="id" hidden>. Shown only where it can work.
const show = (root) => { for (const button of root.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard; };
show(document);
addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(source.value ?? source.textContent);
  const label = button.querySelector("span");
  button.dataset.label ??= label.textContent;
  label.textContent = "Copied";
  say("Copied");
  setTimeout(() => { label.textContent = button.dataset.label; }, 1500);
});

// What changes by itself: <eg-live src="..." every="2">. The address answers with the new content; an answer with the
// header X-Live: over ends it. Nothing is asked while nobody looks.
customElements.define("eg-live", class extends HTMLElement {
  connectedCallback() { this.timer = setInterval(() => this.ask(), 1000 * Number(this.getAttribute("every") || 2)); }
  disconnectedCallback() { clearInterval(this.timer); }
  async ask() {
    if (document.hidden || this.asking || this.contains(document.activeElement)) return;
    this.asking = true;
    try {
      const answer = await fetch(this.getAttribute("src"), { headers: { Accept: "text/html" } });
      if (answer.redirected) return location.reload();
      if (!answer.ok) return;
      const fresh = parse(await answer.text()).body;
      if (fresh.textContent !== this.textContent) say(fresh.querySelector("[data-say]")?.dataset.say ?? "");
      this.replaceChildren(...fresh.childNodes);
      show(this);
      if (answer.headers.get("X-Live") === "over") clearInterval(this.timer);
    } finally {
      this.asking = false;
    }
  }
});

// One menu for all rows of a table: <a href=".../ID" data-menu="menu's id" data-can="names">. In the menu, data-fill names
// the attribute that gets data-with and the ID; what has a data-can of its own may not be for this row.
addEventListener("click", (event) => {
  const opener = event.target.closest("[data-menu]");
  const menu = opener && document.getElementById(opener.dataset.menu);
  if (!menu?.showPopover) return;
  event.preventDefault();
  for (const one of menu.querySelectorAll("[data-fill]"))
    one.setAttribute(one.dataset.fill, (one.dataset.with ?? "") + opener.pathname.split("/").pop());
  const can = opener.dataset.can.split(" ");
  for (const one of menu.querySelectorAll("[data-can]")) one.hidden = !can.includes(one.dataset.can);
  menu.showPopover({ source: opener });
});

// Filter as you type: <form method="get" data-filter="id of what the answer replaces">.
let typing;
addEventListener("input", (event) => {
  const form = event.target.closest("form[data-filter]");
  if (!form) return;
  clearTimeout(typing);
  typing = setTimeout(async () => {
    const address = `${form.action.split("?")[0]}?${new URLSearchParams(new FormData(form))}`;
    const answer = await fetch(address);
    if (!answer.ok) return;
    const page = parse(await answer.text());
    const id = form.dataset.filter;
    const symbols = page.querySelectorAll("symbol");
    for (const symbol of symbols) if (!document.getElementById(symbol.id)) document.body.append(symbol.closest("svg"));
    document.getElementById(id).replaceChildren(...page.getElementById(id).childNodes);
    history.replaceState(null, "", address);
    say(page.getElementById(id).dataset.say ?? "");
  }, 250);
});

// What is not saved: <form data-unsaved> with a <p data-changes> in its bar.
for (const form of document.querySelectorAll("form[data-unsaved]")) {
  const said = form.querySelector("[data-changes]");
  const usual = said.textContent;
  const name = (field) => form.querySelector(`label[for="${CSS.escape(field.id)}"]`)?.firstChild.textContent.trim();
  const isChanged = (field) =>
    field.type === "checkbox" || field.type === "radio" ? field.checked !== field.defaultChecked
      : field instanceof HTMLSelectElement ? [...field.options].some((one) => one.selected !== one.defaultSelected)
        : field.value !== field.defaultValue;
  const look = () => {
    const changed = [...form.elements].filter((field) => "defaultValue" in field || field.options ? isChanged(field) : false);
    const names = [...new Set(changed.map((field) => name(field) ?? field.closest("[data-name]")?.dataset.name).filter(Boolean))];
    said.textContent = changed.length ? `Not saved: ${names.join(", ") || changed.length}` : usual;
  };
  form.addEventListener("input", look);
  form.addEventListener("reset", () => setTimeout(look));
}

// The database is away: ask again by itself.
const retry = document.querySelector("[data-retry]");
if (retry) setTimeout(() => location.replace(retry.href), 5000);
