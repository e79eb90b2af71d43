// Two conveniences; the guide works without them. Copy buttons, and a live panel that renews itself.
"use strict";

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

const panel = document.querySelector("[data-live]");

async function renew() {
  if (document.hidden) return;
  try {
    const answer = await fetch(panel.dataset.live);
    if (answer.ok) panel.innerHTML = await answer.text();
  } catch {
    panel.textContent = "The demo does not answer: it was probably stopped.";
  }
}

function countDown() {
  const left = panel.querySelector("[data-expires]");
  if (!left) return;
  const seconds = Math.max(0, Math.round(Number(left.dataset.expires) - Date.now() / 1000));
  left.textContent = seconds;
  panel.querySelector("progress").value = seconds;
}

if (panel) {
  setInterval(renew, 2000);
  setInterval(countDown, 250);
}
