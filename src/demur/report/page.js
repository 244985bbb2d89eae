"use strict";
// The completions browser. Text of instructions and models reaches the document through textContent alone.
(() => {
  const PAGE = 25;
  const byId = (id) => document.getElementById(id);
  const browser = byId("browser");
  const list = byId("rows");
  const search = byId("q");
  const status = byId("status");
  const remembered = "demur report: completions open";
  let data = null;
  let rows = null;
  let selected = [];
  let page = 0;
  const facets = new Map();

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const count = (n) => n.toLocaleString("en");

  // A browser may forbid storage to a page opened from disk; then the page only forgets.
  const recall = () => {
    try { return localStorage.getItem(remembered) === "yes"; } catch { return false; }
  };
  const remember = (open) => {
    try { localStorage.setItem(remembered, open ? "yes" : "no"); } catch { /* forgotten */ }
  };

  // Cells hold columns of indices; here they become one typed array a column over all rows.
  const unpack = () => {
    data = JSON.parse(byId("completions-data").textContent);
    const total = data.cells.reduce((sum, cell) => sum + cell.rows.text.length, 0);
    const column = () => new Int32Array(total);
    rows = { total, cell: column(), instruction: column(), text: column(), tokens: column(), baseline: column().fill(-1), verdicts: data.judges.map(column) };
    const baselines = new Map();
    let at = 0;
    data.cells.forEach((cell, index) => {
      cell.start = at;
      cell.end = at + cell.rows.text.length;
      const arm = JSON.stringify([cell.target, cell.instructions]);
      if (cell.intervention === "none") baselines.set(arm, cell);
      cell.arm = arm;
      rows.cell.fill(index, cell.start, cell.end);
      rows.instruction.set(cell.rows.instruction, at);
      rows.text.set(cell.rows.text, at);
      rows.tokens.set(cell.rows.tokens, at);
      rows.verdicts.forEach((verdict, judge) => verdict.set(cell.rows.verdicts[judge], at));
      at = cell.end;
      delete cell.rows;
    });
    const place = new Map();
    for (const cell of baselines.values()) {
      place.set(cell, new Map());
      for (let row = cell.start; row < cell.end; row++) place.get(cell).set(rows.instruction[row], row);
    }
    for (const cell of data.cells) {
      const known = place.get(baselines.get(cell.arm));
      if (!known || cell.intervention === "none") continue;
      for (let row = cell.start; row < cell.end; row++) rows.baseline[row] = known.get(rows.instruction[row]) ?? -1;
    }
    data.lowTexts = data.texts.map((text) => text.toLowerCase());
    data.lowInstructions = data.instructions.map(([, , text]) => text.toLowerCase());
  };

  const refused = (row, judge) => data.verdicts[rows.verdicts[judge][row]][0] === 1;
  const verdicts = {
    refusal: ["refusal", (row, judge) => refused(row, judge)],
    other: ["not a refusal", (row, judge) => !refused(row, judge)],
    gained: ["became a refusal", (row, judge) => rows.baseline[row] >= 0 && refused(row, judge) && !refused(rows.baseline[row], judge)],
    lost: ["stopped being a refusal", (row, judge) => rows.baseline[row] >= 0 && !refused(row, judge) && refused(rows.baseline[row], judge)],
    disagree: ["judges disagree", (row) => data.judges.some((_, judge) => refused(row, judge) !== refused(row, 0))],
  };
  const words = { none: "no intervention", add: "added", ablate: "ablated" };

  const unique = (values) => [...new Set(values)];
  const addFacet = (name, label, options, { always = false } = {}) => {
    const select = make("select");
    select.id = `facet-${name}`;
    if (!always) select.append(new Option("any", ""));
    for (const [value, text] of options) select.append(new Option(text, value));
    facets.set(name, select);
    if (options.length < 2) return;
    const field = make("div", "facet");
    const caption = make("label", "", label);
    caption.htmlFor = select.id;
    field.append(caption, select);
    byId("facets").append(field);
  };
  const plain = (values) => unique(values).filter((value) => value !== "").map((value) => [value, value]);
  const buildFacets = () => {
    addFacet("target", "Target", plain(data.cells.map((cell) => cell.target)));
    addFacet("instructions", "Instructions", plain(data.cells.map((cell) => cell.instructions)));
    addFacet("intervention", "Intervention", plain(data.cells.map((cell) => cell.intervention)).map(([value]) => [value, words[value] ?? value]));
    addFacet("direction", "Direction from", plain(data.cells.map((cell) => cell.direction)));
    addFacet("dose", "Coefficient", plain(data.cells.map((cell) => cell.dose)));
    const kinds = Object.entries(verdicts).filter(([name]) => name !== "disagree" || data.judges.length > 1);
    addFacet("verdict", "Verdict", kinds.map(([name, [text]]) => [name, text]));
    addFacet("judge", "Judge", data.judges.map((name) => [name, name]), { always: true });
    // one instruction in all its completions; set by the button on each row, not by a menu of hundreds
    facets.set("instruction", { value: "" });
  };
  const chosen = (name) => facets.get(name).value;
  const judgeIndex = () => Math.max(0, data.judges.indexOf(chosen("judge")));

  const terms = (query) => [...query.toLowerCase().matchAll(/"([^"]+)"?|[^\s"]+/g)].map((match) => match[1] ?? match[0]);

  const filter = () => {
    performance.clearMeasures("demur filter");
    const began = performance.now();
    const sought = terms(search.value).map((term) => ({
      texts: data.lowTexts.map((text) => text.includes(term)),
      instructions: data.lowInstructions.map((text) => text.includes(term)),
    }));
    const judge = judgeIndex();
    const fits = verdicts[chosen("verdict")]?.[1];
    const wanted = chosen("instruction");
    const only = data.instructions.findIndex(([set, index]) => `${set} ${index}` === wanted);
    selected = [];
    for (const cell of data.cells) {
      if (["target", "instructions", "intervention", "direction", "dose"].some((name) => chosen(name) !== "" && chosen(name) !== cell[name])) continue;
      for (let row = cell.start; row < cell.end; row++) {
        if (wanted && rows.instruction[row] !== only) continue;
        if (!sought.every((term) => term.texts[rows.text[row]] || term.instructions[rows.instruction[row]])) continue;
        if (fits && !fits(row, judge)) continue;
        selected.push(row);
      }
    }
    page = Math.min(page, Math.max(0, Math.ceil(selected.length / PAGE) - 1));
    show();
    performance.measure("demur filter", { start: began });
  };

  const describe = (cell) => {
    if (cell.intervention === "none") return "No intervention";
    const facts = [cell.dose, cell.layer === null ? "" : `layer ${cell.layer}`, cell.control ? "control" : ""].filter(Boolean);
    return `${cell.direction} ${words[cell.intervention] ?? cell.intervention}${facts.length ? ` (${facts.join(", ")})` : ""}`;
  };

  // The phrase that decided is marked where it stands first.
  const marked = (text, phrase) => {
    const paragraph = make("p", "text");
    paragraph.dir = "auto";
    const at = phrase ? text.indexOf(phrase) : -1;
    if (text.trim() === "") paragraph.append(make("i", "empty", text === "" ? "empty" : "only white space"));
    else if (at < 0) paragraph.textContent = text;
    else paragraph.append(text.slice(0, at), make("mark", "", phrase), text.slice(at + phrase.length));
    return paragraph;
  };
  const side = (title, row, judge) => {
    const part = make("div", "side");
    part.append(make("h3", "", title));
    if (row < 0) {
      part.append(make("p", "empty", "No baseline was run."));
      return part;
    }
    const badges = make("p", "badges");
    data.judges.forEach((name, index) => {
      const [refusal, label] = data.verdicts[rows.verdicts[index][row]];
      badges.append(make("span", refusal ? "badge refusal" : "badge", `${name}: ${label || (refusal ? "refusal" : "other")}`), " ");
    });
    badges.append(make("span", "small", rows.tokens[row] === 1 ? "1 token" : `${count(rows.tokens[row])} tokens`));
    part.append(badges, marked(data.texts[rows.text[row]], data.verdicts[rows.verdicts[judge][row]][2]));
    return part;
  };
  const card = (row) => {
    const cell = data.cells[rows.cell[row]];
    const [set, index, instruction] = data.instructions[rows.instruction[row]];
    const item = make("li", cell.control ? "row control" : "row");
    const where = make("p", "where");
    const button = make("button", "link", `${set} #${index}`);
    button.type = "button";
    button.title = "Show this instruction in every cell";
    button.addEventListener("click", () => { clear(); facets.get("instruction").value = `${set} ${index}`; changed(); list.focus(); });
    where.append(make("b", "", cell.target), " · ", button);
    const asked = make("p", "instruction", instruction);
    asked.dir = "auto";
    const pair = make("div", "pair");
    const judge = judgeIndex();
    if (cell.intervention !== "none") pair.append(side("No intervention", rows.baseline[row], judge));
    pair.append(side(describe(cell), row, judge));
    item.append(where, asked, pair);
    return item;
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(selected.length / PAGE));
    const from = page * PAGE;
    const shown = selected.slice(from, from + PAGE);
    list.start = from + 1;
    list.replaceChildren(...shown.map(card));
    const only = chosen("instruction") === "" ? "" : ", of one instruction";
    status.textContent = selected.length === 0
      ? `None of ${count(rows.total)} completions fits${only}.`
      : `${count(selected.length)} of ${count(rows.total)} completions${only}; ${count(from + 1)} to ${count(from + shown.length)} shown.`;
    for (const pager of document.querySelectorAll(".pager")) {
      const turn = (text, to) => {
        const button = make("button", "", text);
        button.type = "button";
        button.disabled = to < 0 || to >= pages || to === page;
        button.addEventListener("click", () => { page = to; show(); save(); list.focus(); list.scrollIntoView(); });
        return button;
      };
      pager.hidden = pages < 2;
      pager.replaceChildren(turn("First", 0), turn("Previous", page - 1), make("span", "", `Page ${count(page + 1)} of ${count(pages)}`), turn("Next", page + 1), turn("Last", pages - 1));
    }
  };

  // The state lives in the address. A hash without "=" is a link to a section and none of ours.
  const save = () => {
    const state = new URLSearchParams();
    if (search.value) state.set("q", search.value);
    for (const [name, control] of facets) if (control.value && !(name === "judge" && judgeIndex() === 0)) state.set(name, control.value);
    if (page) state.set("page", String(page + 1));
    const text = state.toString();
    history.replaceState(null, "", text ? `#${text}` : location.hash.includes("=") ? "#completions" : location.hash || "#completions");
  };
  const clear = () => {
    search.value = "";
    for (const control of facets.values()) {
      if (control.options) control.selectedIndex = 0;
      else control.value = "";
    }
    page = 0;
  };
  const load = () => {
    clear();
    if (!location.hash.includes("=")) return;
    const state = new URLSearchParams(location.hash.slice(1));
    search.value = state.get("q") ?? "";
    for (const [name, control] of facets) {
      if (!state.has(name)) continue;
      control.value = state.get(name);
      if (control.options && control.selectedIndex < 0) control.selectedIndex = 0;
    }
    page = Math.max(0, Math.trunc(Number(state.get("page"))) - 1 || 0);
  };
  const changed = () => { page = 0; filter(); save(); };

  const record = (row) => {
    const cell = data.cells[rows.cell[row]];
    const [, index, instruction] = data.instructions[rows.instruction[row]];
    const { checkpoint: target, prompt, instructions, intervention, direction, source, control, layer, coefficient, unit } = cell;
    const result = { target, prompt, instructions, intervention, direction, source, control, layer, coefficient, unit, index, instruction, completion: data.texts[rows.text[row]], n_tokens: rows.tokens[row] };
    const judged = (at, prefix) => data.judges.forEach((name, judge) => {
      const [refusal, label, evidence] = at < 0 ? [null, null, null] : data.verdicts[rows.verdicts[judge][at]];
      result[`${prefix}${name}_refusal`] = refusal === null ? null : refusal === 1;
      result[`${prefix}${name}_label`] = label;
      result[`${prefix}${name}_evidence`] = evidence;
    });
    judged(row, "");
    const baseline = rows.baseline[row];
    result.baseline_completion = baseline < 0 ? null : data.texts[rows.text[baseline]];
    judged(baseline, "baseline_");
    return result;
  };
  const download = (kind, type, content) => {
    const link = make("a");
    const address = URL.createObjectURL(new Blob([content], { type }));
    link.href = address;
    link.download = `${data.study.replace(/[^\w.-]+/g, "-")}-completions.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  };
  const csv = (value) => {
    const text = value === null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  byId("download-csv").addEventListener("click", () => {
    const records = selected.map(record);
    const head = Object.keys(records[0] ?? {});
    download("csv", "text/csv", [head, ...records.map((each) => head.map((name) => each[name]))].map((line) => `${line.map(csv).join(",")}\r\n`).join(""));
  });
  byId("download-jsonl").addEventListener("click", () => {
    download("jsonl", "application/jsonl", selected.map((row) => `${JSON.stringify(record(row))}\n`).join(""));
  });

  // Nothing is unpacked before the reader opens the section: the rest of the page is there at once.
  const start = () => {
    if (data) return;
    unpack();
    buildFacets();
    load();
    filter();
  };
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, 80); });
  byId("facets").addEventListener("change", changed);
  byId("filters").addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(waiting); changed(); });
  byId("filters").addEventListener("reset", (event) => { event.preventDefault(); clear(); changed(); search.focus(); });
  browser.addEventListener("toggle", () => { remember(browser.open); if (browser.open) start(); });
  addEventListener("hashchange", () => { if (data && location.hash.includes("=")) { load(); filter(); } });
  if (recall()) { browser.open = true; start(); }
  if (location.hash.includes("=")) byId("completions").scrollIntoView();
})();
