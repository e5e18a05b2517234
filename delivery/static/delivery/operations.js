// Refreshes the operations page's sections. A section that somebody is using stays as it is.

const EVERY = 5000; // ms
const OLD = "This page could not be refreshed: what you see is old. It is tried again; or reload it.";
const page = document.getElementById("operations");
const box = document.getElementById("refreshing");
const told = document.getElementById("refreshed");

function isUsed(section) {
  const selected = getSelection();
  return (
    section.contains(document.activeElement) ||
    section.querySelector("input:checked, details[data-holds][open]") !== null ||
    (!selected.isCollapsed && section.contains(selected.anchorNode))
  );
}

function unfoldAsBefore(old, fresh) {
  const unfolded = fresh.querySelectorAll("details");
  old.querySelectorAll("details").forEach((details, index) => {
    if (unfolded[index]) unfolded[index].open = details.open;
  });
}

function replace(fresh) {
  const old = document.getElementById(fresh.id);
  if (isUsed(old)) {
    old.classList.add("held");
    return;
  }
  unfoldAsBefore(old, fresh);
  old.replaceWith(fresh);
}

function tell(text) {
  if (told.textContent !== text) told.textContent = text;
}

async function refresh() {
  if (document.hidden || !box.checked) return;
  try {
    const answer = await fetch(page.dataset.fragment, { signal: AbortSignal.timeout(EVERY) });
    // Redirected: the session is over, and this is the page for signing in.
    if (answer.redirected || !answer.ok) throw new Error(answer.statusText);
    const fragment = new DOMParser().parseFromString(await answer.text(), "text/html");
    fragment.querySelectorAll("section").forEach(replace);
    tell("");
  } catch {
    tell(OLD);
  }
}

async function keepFresh() {
  await refresh();
  setTimeout(keepFresh, EVERY);
}

function tickAll(event) {
  if (!event.target.closest(".tick-all")) return;
  const boxes = event.target.form.querySelectorAll(".tick input");
  boxes.forEach((each) => (each.checked = event.target.checked));
}

page.classList.add("scripted");
page.addEventListener("change", tickAll);
box.parentElement.hidden = false;
document.addEventListener("visibilitychange", refresh);
setTimeout(keepFresh, EVERY);
