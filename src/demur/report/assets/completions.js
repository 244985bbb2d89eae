// The table of completions. Texts of instructions and models are put into the document only as textContent.
(() => {
  const PAGE = 50;
  const UNLISTED = ["edit", "instruction"];
  const byId = (id) => document.getElementById(id);
  const browser = byId("browser");
  const list = byId("rows");
  const search = byId("q");
  const status = byId("status");
  const remembered = "demur report: completions open";
  let kept = null;
  let data = null;
  let rows = null;
  let selected = [];
  let page = 0;
  const facets = new Map();

  const inEnglish = new Intl.NumberFormat("en");
  const count = (n) => inEnglish.format(n);

  // A browser may forbid storage to a page opened from disk. Then the page does not remember that the section was open.
  const recall = () => {
    try { return localStorage.getItem(remembered) === "yes"; } catch { return false; }
  };
  const remember = (open) => {
    try { localStorage.setItem(remembered, open ? "yes" : "no"); } catch { /* not remembered */ }
  };

  const unique = (values) => [...new Set(values)];
  const addFacet = (name, label, options, { always = false, needless = false } = {}) => {
    const select = make("select");
    select.id = `facet-${name}`;
    if (!always) select.append(new Option("any", ""));
    for (const [value, text] of options) select.append(new Option(text, value));
    facets.set(name, select);
    if (options.length < 2 || needless) return;
    const field = make("div", "facet");
    const caption = make("label", "", label);
    caption.htmlFor = select.id;
    field.append(caption, select);
    byId("facets").append(field);
  };
  const plain = (values) => unique(values).filter((value) => value !== "").map((value) => [value, value]);
  const buildFacets = () => {
    addFacet("checkpoint", "Checkpoint", plain(data.cells.map((cell) => cell.checkpoint)));
    addFacet("target", "Arm", plain(data.cells.map((cell) => cell.target)), { needless: data.cells.every((cell) => cell.target === cell.checkpoint) });
    addFacet("instructions", "Instruction set", plain(data.cells.map((cell) => cell.instructions)));
    addFacet("intervention", "Intervention", [...new Map(data.cells.map((cell) => [cell.intervention, cell.done]))]);
    addFacet("direction", "Direction from", plain(data.cells.map((cell) => cell.direction)));
    addFacet("dose", "Coefficient", plain(data.cells.map((cell) => cell.dose)));
    const kinds = Object.entries(kept.kinds).filter(([name]) => name !== "disagree" || data.judges.length > 1);
    addFacet("verdict", "Verdict", kinds.map(([name, [text]]) => [name, text]));
    const labels = plain(data.verdicts.map(([, label]) => label));
    addFacet("label", "Label", labels, { needless: labels.length < 3 });
    addFacet("judge", "Judge", data.judges.map((name) => [name, name]), { always: true });
    // Links and buttons set these: the edit of a cell, and one instruction in every cell. A menu would have hundreds of entries.
    for (const name of UNLISTED) facets.set(name, { value: "" });
  };
  const chosen = (name) => facets.get(name).value;
  const judgeIndex = () => Math.max(0, data.judges.indexOf(chosen("judge")));

  // With an arm, an edit and an instruction, the address names one completion. It is shown among the others of its instruction.
  const named = () => (chosen("edit") && chosen("instruction") ? { target: chosen("target") || chosen("checkpoint"), edit: chosen("edit") } : null);
  const filter = () => {
    performance.clearMeasures("demur filter");
    const began = performance.now();
    const wanted = Object.fromEntries([...facets].map(([facet, control]) => [facet, control.value]));
    const around = named() ? { checkpoint: "", target: "", instructions: "", edit: "" } : {};
    selected = kept.select({ ...wanted, ...around, judge: judgeIndex(), query: search.value });
    show();
    kinds();
    performance.measure("demur filter", { start: began });
  };

  const describe = (cell) => {
    if (cell.intervention === "none") return "No intervention";
    const crosses = cell.moved.includes("format") ? "read under another prompt format" : "";
    const facts = [cell.dose, cell.layer === null ? "" : `layer ${cell.layer}`, crosses, cell.control ? "control" : ""].filter(Boolean);
    return `${cell.direction} ${cell.done}${facts.length ? ` (${facts.join(", ")})` : ""}`;
  };

  // The phrase that decided the verdict is marked where it first occurs.
  const marked = (text, phrase) => {
    const paragraph = make("p", "text");
    paragraph.dir = "auto";
    const at = phrase ? text.indexOf(phrase) : -1;
    if (text.trim() === "") paragraph.append(make("i", "empty", text === "" ? "empty" : "only white space"));
    else if (at < 0) paragraph.textContent = text;
    else paragraph.append(text.slice(0, at), make("mark", "", phrase), text.slice(at + phrase.length));
    return paragraph;
  };
  const badges = (row) => {
    const line = make("p", "badges");
    data.judges.forEach((name, index) => {
      const [refusal, label] = kept.verdict(row, index);
      // People label a sample only.
      if (refusal === null && index >= data.judges.length - data.people) return;
      const said = refusal === null ? "no verdict" : label || (refusal ? "refusal" : "other");
      line.append(make("span", refusal ? "badge refusal" : "badge", `${name}: ${said}`), " ");
    });
    line.append(make("span", "small", rows.tokens[row] === 1 ? "1 token" : `${count(rows.tokens[row])} tokens`));
    return line;
  };
  const written = (row, judge) => [badges(row), marked(data.texts[rows.text[row]], kept.verdict(row, judge)[2])];
  const button = (text, title, act, className = "link") => {
    const element = make("button", className, text);
    element.type = "button";
    if (title) element.setAttribute("aria-label", title);
    element.addEventListener("click", act);
    return element;
  };
  const copy = async (row) => {
    const cell = data.cells[rows.cell[row]];
    const [set, index, instruction] = data.instructions[rows.instruction[row]];
    const text = `${cell.target}, ${describe(cell)}; ${set} ${index}\n\n${instruction}\n\n${data.texts[rows.text[row]]}\n`;
    try {
      await navigator.clipboard.writeText(text);
      status.textContent = "Copied: instruction and completion.";
    } catch {
      // Some browsers forbid the clipboard to files on disk, but they can copy a selection.
      const field = make("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      status.textContent = document.execCommand("copy") ? "Copied: instruction and completion." : "This browser does not let the page copy text.";
      field.remove();
    }
  };
  const address = (row) => {
    const { target, edit } = data.cells[rows.cell[row]];
    return `#${new URLSearchParams({ target, edit, instruction: name(row) })}`;
  };
  const name = (row) => data.instructions[rows.instruction[row]].slice(0, 2).join(" ");
  const actions = (row, { alone }) => {
    const line = make("p", "acts");
    const which = `${name(row)}, ${data.cells[rows.cell[row]].target}, ${describe(data.cells[rows.cell[row]])}`;
    if (!alone) line.append(button("Side by side", `Show ${name(row)} in every cell, side by side`, () => { only(name(row)); }), " ");
    const link = make("a", "", "Link");
    link.href = address(row);
    link.setAttribute("aria-label", `Link to ${which}`);
    line.append(link, " ", button("Copy", `Copy ${which}`, () => copy(row)));
    return line;
  };
  const only = (wanted) => {
    facets.get("edit").value = "";
    facets.get("instruction").value = wanted;
    for (const [facet, control] of facets) if (control.options && facet !== "judge") control.selectedIndex = 0;
    search.value = "";
    changed();
    list.focus();
    list.scrollIntoView();
  };

  // A table of completions. Each edited one is next to what the same checkpoint wrote without an edit.
  const line = (row, judge) => {
    const cell = data.cells[rows.cell[row]];
    const item = make("tr", cell.control ? "control" : "");
    const head = make("th");
    head.scope = "row";
    head.append(make("b", "", cell.target), make("span", "what", describe(cell)), actions(row, { alone: false }));
    const asked = make("td", "asked");
    const text = make("p", "instruction", data.instructions[rows.instruction[row]][2]);
    text.dir = "auto";
    asked.append(make("p", "small", name(row)), text);
    const before = make("td", "before");
    const after = make("td", "after");
    before.dataset.head = "Without an edit";
    after.dataset.head = "Edited";
    const edited = cell.intervention !== "none";
    const alone = edited ? rows.baseline[row] : row;
    if (alone < 0) before.append(make("p", "empty", "not run"));
    else before.append(...written(alone, judge));
    if (edited) after.append(...written(row, judge));
    else {
      after.classList.add("blank");
      after.append(make("p", "empty", "\u2013"));
    }
    item.append(head, asked, before, after);
    return item;
  };
  const table = (shown, judge) => {
    const element = make("table", "completions");
    const top = make("tr");
    for (const title of ["Where", "Instruction", "Without an edit", "Edited"]) {
      const cell = make("th", "", title);
      cell.scope = "col";
      top.append(cell);
    }
    const head = make("thead");
    const body = make("tbody");
    head.append(top);
    body.append(...shown.map((row) => line(row, judge)));
    element.append(make("caption", "hidden", "Completions"), head, body);
    return element;
  };

  // One instruction: one card for each cell, grouped by target.
  const compared = (shown, judge) => {
    const [, , instruction] = data.instructions[rows.instruction[shown[0]]];
    const text = make("p", "instruction", instruction);
    text.dir = "auto";
    const parts = [button("Back to all completions", "", () => { for (const unlisted of UNLISTED) facets.get(unlisted).value = ""; changed(); list.focus(); }, ""), text];
    let block = null;
    let target = null;
    for (const row of shown) {
      const cell = data.cells[rows.cell[row]];
      if (cell.target !== target) {
        target = cell.target;
        block = make("div", "cards");
        parts.push(make("h3", "", `${target}`), block);
      }
      const card = make("article", cell.control ? "card control" : "card");
      if (cell.edit === named()?.edit && cell.target === named().target) {
        card.classList.add("chosen");
        card.setAttribute("aria-current", "true");
      }
      card.append(make("h4", "", describe(cell)), ...written(row, judge), actions(row, { alone: true }));
      block.append(card);
    }
    return parts;
  };

  const show = () => {
    const wanted = chosen("instruction");
    const size = wanted ? Math.max(1, selected.length) : PAGE;
    const pages = Math.max(1, Math.ceil(selected.length / size));
    page = Math.min(page, pages - 1);
    const from = page * size;
    const shown = selected.slice(from, from + size);
    const judge = judgeIndex();
    list.replaceChildren(...(shown.length === 0 ? [] : wanted ? compared(shown, judge) : [table(shown, judge)]));
    const limits = [["instruction", wanted], ["edit", named() ? "" : chosen("edit")]].filter(([, value]) => value);
    const highlighted = named() ? `; ${named().target}, ${named().edit} is marked` : "";
    const of = limits.length ? ` (only ${limits.map((limit) => limit.join(" ")).join(", ")})` : "";
    status.textContent = selected.length === 0
      ? `None of ${count(rows.total)} completions matches the filters${of}.`
      : `${count(selected.length)} of ${count(rows.total)} completions${of}; ${count(from + 1)} to ${count(from + shown.length)} shown${highlighted}.`;
    for (const pager of document.querySelectorAll(".pager")) {
      const turn = (text, to) => {
        const element = button(text, "", () => { page = to; show(); save(); list.focus(); list.scrollIntoView(); }, "");
        element.disabled = to < 0 || to >= pages || to === page;
        return element;
      };
      pager.hidden = pages < 2;
      pager.replaceChildren(turn("First", 0), turn("Previous", page - 1), make("span", "", `Page ${count(page + 1)} of ${count(pages)}`), turn("Next", page + 1), turn("Last", pages - 1));
    }
  };

  const kinds = () => { byId("kinds").replaceChildren(...(selected.length ? kindLines(data, kept.tally(selected), selected.length) : [])); };

  // The address holds the filters and the page.
  const save = () => {
    const state = new URLSearchParams();
    if (search.value) state.set("q", search.value);
    for (const [name, control] of facets) if (control.value && !(name === "judge" && judgeIndex() === 0)) state.set(name, control.value);
    if (page) state.set("page", String(page + 1));
    pageAddress.keep(state);
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
    const state = pageAddress.filters();
    search.value = state.get("q") ?? "";
    for (const [name, control] of facets) {
      if (!state.has(name)) continue;
      control.value = state.get(name);
      if (control.options && control.selectedIndex < 0) control.selectedIndex = 0;
    }
    // Where every checkpoint has one arm, its menu is that of the checkpoint.
    const arm = facets.get("target");
    if (arm.value && !arm.isConnected) {
      facets.get("checkpoint").value = arm.value;
      arm.value = "";
    }
    page = Math.max(0, Math.trunc(Number(state.get("page"))) - 1 || 0);
  };
  const changed = () => { page = 0; filter(); save(); };

  byId("download-csv").addEventListener("click", () => {
    const records = selected.map(kept.record);
    download(`${data.study}-completions`, "csv", "text/csv", csvText(records));
  });
  byId("download-jsonl").addEventListener("click", () => {
    download(`${data.study}-completions`, "jsonl", "application/jsonl", selected.map((row) => `${JSON.stringify(kept.record(row))}\n`).join(""));
  });

  // The completions are read only when the section is opened, so that the rest of the page appears at once.
  let reading = false;
  const start = (reveal = () => {}) => {
    if (data || reading) return;
    reading = true;
    status.textContent = "Reading the completions \u2026";
    completionsText((text) => {
      kept = completionRows(text);
      ({ data, rows } = kept);
      buildFacets();
      load();
      filter();
      reveal();
    }, (sentence) => {
      reading = false;
      status.textContent = sentence;
    });
  };
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, 80); });
  byId("facets").addEventListener("change", changed);
  byId("filters").addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(waiting); changed(); });
  byId("filters").addEventListener("reset", (event) => { event.preventDefault(); clear(); changed(); search.focus(); });
  // A link to completions opens them, under a note that says so. Only what the reader opens stays open on this device.
  let byLink = false;
  browser.addEventListener("toggle", () => {
    if (browser.open) start();
    if (!byLink) remember(browser.open);
    byLink = false;
    if (!browser.open) byId("by-link").hidden = true;
  });
  byId("hide-completions").addEventListener("click", () => { browser.open = false; byId("completions").scrollIntoView(); });
  if (recall()) {
    byLink = true;
    browser.open = true;
  }
  pageAddress.onFilters((filters) => {
    if (!filters.size) return;
    if (!browser.open) {
      byLink = true;
      browser.open = true;
      byId("by-link").hidden = false;
    }
    const reveal = () => {
      const one = list.querySelector(".chosen");
      pageAddress.goTo(one ?? byId("completions"), one ? "center" : "start");
    };
    if (!data) {
      start(reveal);
      return;
    }
    load();
    filter();
    reveal();
  });
  if (browser.open) start();
  pageAddress.show();
})();
