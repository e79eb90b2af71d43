// <evergrant-accounts session="URL"> shows a user's connected accounts; <evergrant-connect session="URL" app="ID"
// scopes="a b"> is the button for one app. Each is a frame. Events: connected, disconnected, cancelled, failed (with
// detail.app) and expired, after which the element wants a new session.
const opened = new Map(); // a session opens once: the first frame of a page opens it, and the others wait for that

const light = () => { // whether this page is: what the frame shows stands on it
  const scheme = getComputedStyle(document.documentElement).colorScheme;
  return !scheme.includes("dark") || (scheme.includes("light") && !matchMedia("(prefers-color-scheme: dark)").matches);
};

class Framed extends HTMLElement {
  static observedAttributes = ["session", "app", "scopes"];

  connectedCallback() {
    this.root ??= this.attachShadow({ mode: "open" });
    this.hear = (event) => this.heard(event);
    addEventListener("message", this.hear);
    this.show();
  }

  disconnectedCallback() {
    removeEventListener("message", this.hear);
    clearTimeout(this.timer);
    this.answered?.();
  }

  attributeChangedCallback(_, before, now) {
    if (this.isConnected && this.root && before !== now) this.show();
  }

  async show() {
    const session = this.getAttribute("session");
    if (!session) return;
    const turn = (this.turn = {});
    const address = new URL(session);
    const first = opened.get(session);
    if (first) await first;
    else opened.set(session, new Promise((done) => { this.answered = done; }));
    if (this.turn !== turn || !this.isConnected) return;
    this.origin = address.origin;
    const asked = { frame: this.what, app: this.getAttribute("app") ?? "", scopes: this.getAttribute("scopes") ?? "" };
    for (const [name, value] of Object.entries(asked)) if (value) address.searchParams.set(name, value);
    const frame = (this.frame = document.createElement("iframe"));
    Object.assign(frame.style, { border: "0", display: "block", width: "100%", height: "0" });
    frame.title = this.getAttribute("label") ?? this.label;
    frame.addEventListener("load", () => frame.contentWindow?.postMessage({ evergrant: "hello", light: light() }, this.origin));
    frame.src = address;
    this.root.replaceChildren(frame);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.giveUp(session), 3000);
  }

  giveUp(session) {
    const link = document.createElement("a");
    Object.assign(link, { href: session, target: "_blank", rel: "noopener" });
    link.textContent = this.getAttribute("open-label") ?? "Open in a new tab";
    this.root.append(link);
    this.frame.style.display = "none";
    this.answered?.();
  }

  heard({ source, origin, data }) {
    if (!this.frame || source !== this.frame.contentWindow || origin !== this.origin) return;
    if (data?.evergrant === "size") {
      clearTimeout(this.timer);
      this.root.querySelector("a")?.remove();
      Object.assign(this.frame.style, { display: "block", height: `${data.height}px` });
      if (this.what === "button") this.frame.style.width = `min(100%, ${data.width}px)`;
      this.answered?.();
    } else if (data?.evergrant === "event") {
      this.dispatchEvent(new CustomEvent(data.name, { detail: { app: data.app }, bubbles: true, composed: true }));
    }
  }
}

customElements.define("evergrant-accounts", class extends Framed { what = "accounts"; label = "Connected accounts"; });
customElements.define("evergrant-connect", class extends Framed { what = "button"; label = "Connect"; });
