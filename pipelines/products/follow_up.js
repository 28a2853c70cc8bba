"use strict";
// Decisions of a reader on the lesions of a page, as a CSV file. The page holds its data; nothing leaves it but the saved file.
const data = JSON.parse(document.getElementById("data").textContent);
const state = document.getElementById("state");
const lines = new Map(); // number of a row -> its parts on the page
let isSaved = true;

function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function decisionOf(line) {
  const kind = line.select.value;
  const place = line.inputs.map((input) => input.value.trim());
  if (!kind) return null;
  if (kind === "move" && !place.every((text) => text !== "" && Number.isFinite(Number(text)))) return undefined;
  return { decision: kind, place: kind === "move" ? place : ["", "", ""] };
}

function show() {
  let made = 0, open = 0;
  for (const line of lines.values()) {
    line.row.classList.toggle("moving", line.select.value === "move");
    // out: rejected between earlier visits, which counts while nothing else is decided here
    line.row.classList.toggle("rejected", line.select.value === "reject" || (line.select.value === "" && line.known.out));
    const found = decisionOf(line);
    if (found) made += 1;
    if (found === undefined) open += 1;
  }
  const more = open ? `, ${open} without a new position (not saved)` : "";
  state.textContent = `${made} decision${made === 1 ? "" : "s"}${more}${isSaved ? "" : ", changed since they were saved"}`;
}

for (const row of document.querySelectorAll("tr[data-row]")) {
  const known = data.rows[Number(row.dataset.row)];
  const line = { row, known, select: row.querySelector("select"), inputs: [...row.querySelectorAll("input")] };
  line.select.value = known.decision;
  line.inputs.forEach((input, n) => { input.value = known.shown[n]; });
  for (const control of [line.select, ...line.inputs]) {
    control.addEventListener("input", () => { isSaved = false; show(); });
  }
  lines.set(row.dataset.row, line);
}

document.getElementById("save").addEventListener("click", () => {
  const table = [data.columns, ...data.kept];
  for (const line of lines.values()) {
    const found = decisionOf(line);
    if (found) table.push([...line.known.start, line.known.event, found.decision, ...found.place]);
  }
  const text = table.map((row) => row.map(cell).join(",")).join("\n") + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = data.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  isSaved = true;
  show();
});

window.addEventListener("beforeunload", (event) => { if (!isSaved) event.preventDefault(); });
show();
