"use strict";
// Shows the report that stands in the page as JSON. Names are only ever set as text.
const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") node.textContent = value;
    else if (key === "on") for (const [name, act] of Object.entries(value)) node.addEventListener(name, act);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function section(id, title) {
  const found = make("section", { id, "aria-label": title }, make("h2", { text: title }));
  document.querySelector("main").append(found);
  return found;
}

// Numbers ---------------------------------------------------------------------------------

function micros(ns) {
  return (ns / 1000).toLocaleString("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 }) + " µs";
}
function signed(ns) {
  return (ns > 0 ? "+" : ns < 0 ? "−" : "") + micros(Math.abs(ns));
}
function percent(part) {
  const size = Math.abs(part) * 100;
  return (part < 0 ? "−" : "+") + size.toFixed(size < 1 ? 2 : 1) + "%";
}

// Head ------------------------------------------------------------------------------------

function showHead() {
  const header = document.querySelector("header");
  header.append(make("h1", { text: data.headline }));
  for (const text of data.warnings) header.append(make("p", { class: "warning", text: "Note: " + text }));
  const facts = make("dl", { class: "facts" });
  for (const [key, value] of data.facts) facts.append(make("dt", { text: key }), make("dd", { text: value }));
  header.append(facts);
}

// Tables ----------------------------------------------------------------------------------

const SHOWN = 500; // rows of a table at first: a browser is slow with a hundred thousand

function showTable(parent, table, number) {
  parent.append(make("h3", { text: table.title }));
  const count = make("span", { class: "soft", role: "status" });
  const body = make("tbody");
  const rows = table.rows.map((cells, place) => ({ cells, place, text: cells.map((cell) => cell[0]).join(" ").toLowerCase() }));
  let sorted = { column: -1, down: true }, most = SHOWN, waiting = 0;
  const filter = make("input", {
    type: "search", placeholder: "Filter", "aria-label": "Filter " + table.title, id: "filter-" + number,
    on: { input: () => { clearTimeout(waiting); waiting = setTimeout(fill, rows.length > SHOWN ? 150 : 0); } },
  });
  const all = make("button", { type: "button", class: "plain", text: "Show all rows", on: { click: () => { most = Infinity; fill(); } } });
  const heads = table.columns.map((column, place) =>
    make("th", { class: column.text ? "text" : null, scope: "col" },
      make("button", { type: "button", text: column.title || " ", "aria-label": "Sort by " + (column.title || "mark"), on: { click: () => sort(place) } })));
  function sort(column) {
    sorted = { column, down: sorted.column === column ? !sorted.down : !table.columns[column].text };
    heads.forEach((head, place) => {
      if (place === column) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    fill();
  }
  function compare(one, other) {
    if (sorted.column < 0) return one.place - other.place;
    const [a, b] = [one.cells[sorted.column][1], other.cells[sorted.column][1]];
    if (a === b) return one.place - other.place;
    if (a === null) return 1; // what has no value comes last, either way
    if (b === null) return -1;
    return (a < b ? -1 : 1) * (sorted.down ? -1 : 1);
  }
  function fill() {
    const wanted = filter.value.toLowerCase();
    const shown = rows.filter((row) => row.text.includes(wanted)).sort(compare);
    body.replaceChildren(...shown.slice(0, most).map((row) => make("tr", {}, ...row.cells.map((cell, place) => {
      const column = table.columns[place];
      return make("td", { class: column.name ? "text name" : column.text ? "text" : null, text: cell[0] });
    }))));
    const of = shown.length === rows.length ? rows.length + " rows" : shown.length + " of " + rows.length + " rows";
    all.hidden = shown.length <= most;
    count.textContent = all.hidden ? of : of + ", the first " + most + " of them here";
  }
  parent.append(make("div", { class: "controls" }, filter, count, all));
  parent.append(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": table.title },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body)));
  if (table.note) parent.append(make("p", { class: "soft", text: table.note }));
  fill();
}

// Flame -----------------------------------------------------------------------------------

const ROW = 22;
const LEAST = 0.0012; // of the width: less can be neither seen nor hit

function Flame(parent, flame) {
  const count = flame.name.length;
  const children = Array.from({ length: count }, () => []);
  for (let node = 1; node < count; node++) children[flame.parent[node]].push(node);
  const state = { measure: "cpu", root: 0, focus: 0, search: "", noise: false };
  const box = make("div", { id: "flame", role: "group", "aria-label": "Call tree, a button for each node" });
  const note = make("div", { id: "node", role: "status", "aria-live": "polite" });
  const hits = make("span", { class: "soft", role: "status" });
  const tiny = make("p", { class: "soft", role: "status" });
  const verdicts = { op: new Map(data.verdicts.op), kernel: new Map(data.verdicts.kernel) };
  let shown = new Map();

  const per = (key, side, node) => flame.captures[side] ? flame[key][side][node] / flame.captures[side] : 0;
  const name = (node) => flame.names[flame.name[node]];
  const weight = (node) => per(state.measure, 0, node) + per(state.measure, 1, node);
  const kindOf = (node) => flame.kind[node] === 2 ? "kernel" : "op";
  const verdictOf = (node) => (!flame.folded[node] && verdicts[kindOf(node)].get(name(node))) || "";
  const isOnly = (node) => data.single ? "" : !flame.calls[0][node] && node ? "added" : !flame.calls[1][node] && node ? "removed" : "";

  function color(node) {
    const [before, after] = [per(state.measure, 0, node), per(state.measure, 1, node)];
    if (data.single || (!before && !after)) return "";
    if (!state.noise && !isOnly(node) && !/^[+−]/.test(verdictOf(node))) return "";
    // Where the whole cannot be told to have changed, what its unchanged code did is no color.
    const drift = data.drifts[state.measure] ?? 1;
    const moved = (after - before * drift) / Math.max(before * drift, after);
    const strength = Math.min(1, Math.abs(moved) / 0.5);
    if (strength < 0.02) return "";
    const hue = moved > 0 ? 6 : 215;
    return dark.matches ? `hsl(${hue} 55% ${20 + 16 * strength}%)` : `hsl(${hue} 85% ${94 - 22 * strength}%)`;
  }

  function describe(node) {
    note.replaceChildren(make("b", { text: flame.folded[node] ? flame.folded[node] + " smaller nodes" : name(node) }));
    const lines = [];
    for (const [key, word] of [["cpu", "CPU"], ["gpu", "GPU"]]) {
      const [before, after] = [per(key, 0, node), per(key, 1, node)];
      if (!before && !after) continue;
      lines.push(data.single ? `${word} ${micros(before)}` :
        `${word} ${micros(before)} → ${micros(after)}, Δ ${signed(after - before)}` + (before && after ? ` (${percent(after / before - 1)})` : ""));
    }
    const calls = [per("calls", 0, node), per("calls", 1, node)];
    if (node && !flame.folded[node]) {
      const words = flame.kind[node] === 2 ? "activities" : "calls";
      const each = (side) => calls[side] ? micros(per(flame.kind[node] === 2 ? "gpu" : "cpu", side, node) / calls[side]) : "–";
      lines.push(data.single ? `${calls[0].toLocaleString("en")} ${words}, ${each(0)} each` :
        `${calls[0].toLocaleString("en")} → ${calls[1].toLocaleString("en")} ${words}, ${each(0)} → ${each(1)} each`);
    }
    const whole = weight(0);
    if (whole) lines.push(`${(100 * weight(node) / whole).toFixed(2)}% of all`);
    if (verdictOf(node)) lines.push(`this ${kindOf(node)} in all places: ${verdictOf(node)}`);
    if (isOnly(node)) lines.push(isOnly(node) + " here");
    for (const text of lines) note.append(make("div", { text }));
  }

  function place(node, left, width, depth, out) {
    out.push({ node, left, width, depth });
    let at = left;
    const inside = children[node].map((child) => [child, weight(child)]).filter((pair) => pair[1] > 0);
    inside.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    const sum = inside.reduce((total, pair) => total + pair[1], 0);
    const scale = width / Math.max(weight(node), sum, 1e-9); // children may overlap each other
    for (const [child, size] of inside) {
      const own = size * scale;
      if (own >= LEAST) place(child, at, own, depth + 1, out);
      at += own;
    }
  }

  function draw() {
    const out = [], above = [];
    for (let node = state.root; node > 0; node = flame.parent[node]) above.unshift(flame.parent[node]);
    above.forEach((node, depth) => out.push({ node, left: 0, width: 1, depth }));
    place(state.root, 0, 1, above.length, out);
    shown = new Map();
    const wanted = state.search.toLowerCase();
    let found = 0;
    const buttons = out.map(({ node, left, width, depth }) => {
      const only = isOnly(node);
      const isFound = wanted && name(node).toLowerCase().includes(wanted);
      if (isFound) found += 1;
      const button = make("button", {
        type: "button", tabindex: node === state.focus ? "0" : "-1", "data-node": node,
        class: [only, isFound ? "found" : ""].join(" ").trim() || null, text: width > 0.02 ? name(node) : "",
        "aria-label": name(node) + (only ? ", " + only : ""),
      });
      button.style.left = 100 * left + "%";
      button.style.width = 100 * width + "%";
      button.style.top = depth * ROW + "px";
      const tint = color(node);
      if (tint) button.style.backgroundColor = tint;
      shown.set(node, button);
      return button;
    });
    box.style.height = (1 + Math.max(...out.map((item) => item.depth))) * ROW + "px";
    box.replaceChildren(...buttons);
    if (!shown.has(state.focus)) state.focus = state.root;
    shown.get(state.focus).tabIndex = 0;
    const inAll = wanted ? flame.name.reduce((sum, _, node) => sum + (node && name(node).toLowerCase().includes(wanted) ? 1 : 0), 0) : 0;
    hits.textContent = wanted ? `${found} found here, ${inAll} in the whole tree` : "";
    next.hidden = !wanted || !inAll;
    const here = below(state.root);
    tiny.textContent = here > out.length ? `${(here - out.length).toLocaleString("en")} of ${here.toLocaleString("en")} nodes are too narrow to be drawn, or have no ${state.measure.toUpperCase()} time: zoom in, or search.` : "";
    describe(state.focus);
  }

  function below(root) {
    let count = 0;
    for (const nodes = [root]; nodes.length; count++) nodes.push(...children[nodes.pop()]);
    for (let node = root; node > 0; node = flame.parent[node]) count++;
    return count;
  }
  // To the next node that was searched for, wherever it is: its parent fills the width.
  function find() {
    const wanted = state.search.toLowerCase();
    for (let by = 1; by <= count; by++) {
      const node = (state.focus + by) % count;
      if (node && name(node).toLowerCase().includes(wanted)) {
        state.root = shown.has(node) ? state.root : Math.max(flame.parent[node], 0);
        state.focus = node;
        draw();
        if (!shown.has(node)) { state.root = state.focus = node; draw(); }
        return;
      }
    }
  }

  function focus(node) {
    if (node === undefined || !shown.has(node)) return;
    shown.get(state.focus)?.setAttribute("tabindex", "-1");
    state.focus = node;
    shown.get(node).tabIndex = 0;
    shown.get(node).focus();
    describe(node);
  }
  function zoom(node) {
    state.root = state.focus = node;
    draw();
    shown.get(node).focus();
  }
  const visible = (nodes) => nodes.filter((node) => shown.has(node)).sort((a, b) => parseFloat(shown.get(a).style.left) - parseFloat(shown.get(b).style.left));
  function beside(node, by) {
    const all = node ? visible(children[flame.parent[node]]) : [0];
    return all[all.indexOf(node) + by];
  }
  box.addEventListener("keydown", (event) => {
    const node = state.focus;
    const act = {
      ArrowUp: () => focus(flame.parent[node]), ArrowDown: () => focus(visible(children[node])[0]),
      ArrowLeft: () => focus(beside(node, -1)), ArrowRight: () => focus(beside(node, 1)),
      Escape: () => zoom(Math.max(flame.parent[state.root], 0)), Home: () => zoom(0),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  const nodeOf = (event) => { const button = event.target.closest("[data-node]"); return button ? Number(button.dataset.node) : undefined; };
  box.addEventListener("click", (event) => { const node = nodeOf(event); if (node !== undefined) zoom(node === state.root ? Math.max(flame.parent[node], 0) : node); });
  box.addEventListener("mouseover", (event) => { const node = nodeOf(event); if (node !== undefined) describe(node); });
  box.addEventListener("mouseleave", () => describe(state.focus));
  dark.addEventListener("change", draw);

  const choice = make("fieldset", { class: "controls" }, make("legend", { text: "Width by" }));
  for (const [key, word] of [["cpu", "CPU time"], ["gpu", "GPU time"]]) {
    const has = flame[key].some((side) => side[0] > 0);
    const input = make("input", { type: "radio", name: "measure", value: key, checked: key === "cpu", disabled: !has,
      on: { change: () => { state.measure = key; draw(); } } });
    choice.append(make("label", {}, input, " " + word));
  }
  const noise = make("label", {}, make("input", { type: "checkbox", id: "noise", on: { change: (event) => { state.noise = event.target.checked; draw(); } } }), " Color noise as well");
  const search = make("input", { type: "search", placeholder: "Search names", "aria-label": "Search the call tree", id: "search",
    on: { input: () => { state.search = search.value; draw(); },
      keydown: (event) => { if (event.key === "Enter" && state.search) find(); } } });
  const next = make("button", { type: "button", class: "plain", text: "Next", hidden: true, on: { click: find } });
  const reset = make("button", { type: "button", class: "plain", text: "Show all", on: { click: () => zoom(0) } });
  parent.append(make("div", { class: "controls" }, choice, ...(data.single ? [] : [noise]), search, next, reset, hits), box, note, tiny);
  draw();
}

function showFlame() {
  const parent = section("tree", data.single ? "Call tree" : "Call tree, before and after");
  Flame(parent, data.flame);
  if (!data.single) {
    const legend = make("p", { class: "soft legend" }, "Red: slower, blue: faster, by the means of the captures: what is new or gone, and calls of ops and kernels that the tables declare changed. " +
      "Where the time of all scopes cannot be told to have changed, what the unchanged code did is taken out of the colors. ");
    legend.append(make("span", { class: "added", text: "added" }), make("span", { class: "removed", text: "removed" }));
    parent.append(legend);
  }
  parent.append(make("p", { class: "soft", text: "Click, or Enter, zooms in; on the node that fills the width, out; Escape zooms out. Arrow keys move between nodes." }));
}

// Distributions ---------------------------------------------------------------------------

function bars(counts, kind, top, height, most) {
  const group = document.createElementNS("http://www.w3.org/2000/svg", "g");
  counts.forEach((value, place) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const size = value ? Math.max(1, height * value / most) : 0;
    for (const [key, number] of [["x", place * 8], ["width", 7], ["y", top + height - size], ["height", size]]) bar.setAttribute(key, number);
    bar.setAttribute("class", kind);
    group.append(bar);
  });
  return group;
}

function showDistributions() {
  if (!data.distributions.length) return;
  const parent = section("calls", "Calls, one by one");
  parent.append(make("p", { class: "soft", text: "How long each call took, in all captures; from left to right on a logarithmic scale." }));
  if (!data.single) parent.append(make("p", {}, make("span", { class: "key before", text: "before " }), make("span", { class: "key after", text: "after" })));
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...["op", "calls", "median", "90th percentile", "from", "distribution", "to"].map(
    (text, place) => make("th", { class: place === 0 || place === 5 ? "text" : null, scope: "col" }, make("span", { text }))))));
  const body = make("tbody");
  for (const item of data.distributions) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const both = data.single ? 1 : 2;
    for (const [key, value] of [["width", 8 * item.before.length], ["height", 26 * both], ["role", "img"], ["aria-label", "distribution of " + item.op]]) svg.setAttribute(key, value);
    svg.append(bars(item.before, "before", 0, 24, Math.max(...item.before, 1)));
    if (!data.single) svg.append(bars(item.after, "after", 26, 24, Math.max(...item.after, 1)));
    const pair = (texts) => data.single ? texts[0] : texts.join(" → ");
    body.append(make("tr", {}, make("td", { class: "text name", text: item.op }), make("td", { text: pair(item.calls) }),
      make("td", { text: pair(item.median) }), make("td", { text: pair(item.high) }), make("td", { text: item.from }),
      make("td", { class: "text" }, svg), make("td", { text: item.to })));
  }
  table.append(body);
  parent.append(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Distributions" }, table));
}

// All -------------------------------------------------------------------------------------

showHead();
// The verdict is painted before the rest is drawn.
requestAnimationFrame(() => setTimeout(() => {
  showFlame();
  const tables = section("tables", "Tables");
  data.tables.forEach((table, number) => showTable(tables, table, number));
  showDistributions();
  const last = section("reproduce", "How to reproduce");
  for (const text of data.blocks) last.append(make("pre", { text, tabindex: "0" }));
  for (const text of data.remarks) last.append(make("p", { class: "soft", text }));
}));
