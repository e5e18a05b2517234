// The unknown page: one box ticks all rows, and is unticked with the first of them that is.

const form = document.querySelector("form.cases");
const all = form?.querySelector(".all input");
const rows = [...(form?.querySelectorAll("input[name=row]") ?? [])];

all?.addEventListener("change", () => rows.forEach((row) => (row.checked = all.checked)));
rows.forEach((row) =>
  row.addEventListener("change", () => (all.checked = rows.every((each) => each.checked))),
);
