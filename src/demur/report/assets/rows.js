// The completions as columns of numbers: selects rows, and gives one row as a record. This does not use the document.
const completionRows = (source) => {
  const data = JSON.parse(source);
  // Each cell has columns of indices. Here each column becomes one typed array over the rows of all cells.
  const total = data.cells.reduce((sum, cell) => sum + cell.rows.text.length, 0);
  const column = () => new Int32Array(total);
  const rows = { total, cell: column(), instruction: column(), text: column(), tokens: column(), baseline: column().fill(-1), verdicts: data.judges.map(column) };
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

  // The index is -1 if a judge failed. Then there is no verdict: neither a refusal nor another answer.
  const none = [null, null, null];
  const verdict = (row, judge) => (row < 0 ? none : data.verdicts[rows.verdicts[judge][row]] ?? none);
  const labelOf = (row, judge) => verdict(row, judge)[1];
  const given = data.judges.map((_, judge) => new Set([...new Set(rows.verdicts[judge])].filter((at) => at >= 0).map((at) => data.verdicts[at][1])));
  // If the chosen judge never gives a label, the judges that do give it are searched.
  const givers = (label, judge) => (given[judge].has(label) ? [judge] : data.judges.map((_, each) => each).filter((each) => given[each].has(label)));
  const refused = (row, judge) => verdict(row, judge)[0] === 1;
  const other = (row, judge) => verdict(row, judge)[0] === 0;
  const kinds = {
    refusal: ["refusal", refused],
    other: ["not a refusal", other],
    gained: ["became a refusal", (row, judge) => refused(row, judge) && other(rows.baseline[row], judge)],
    lost: ["stopped being a refusal", (row, judge) => other(row, judge) && refused(rows.baseline[row], judge)],
    disagree: ["judges disagree", (row) => data.judges.some((_, judge) => refused(row, judge)) && data.judges.some((_, judge) => other(row, judge))],
  };
  if (rows.verdicts.some((column) => column.includes(-1))) kinds.none = ["no verdict", (row, judge) => verdict(row, judge) === none];
  const terms = (query) => [...query.toLowerCase().matchAll(/"([^"]+)"?|[^\s"]+/g)].map((match) => match[1] ?? match[0]);
  // Each text is searched only once, and cells that do not fit are skipped as a whole. So each row needs only array lookups.
  const select = ({ query, judge, verdict: kind, label, instruction, ...wanted }) => {
    const sought = terms(query).map((term) => ({
      texts: data.lowTexts.map((text) => text.includes(term)),
      instructions: data.lowInstructions.map((text) => text.includes(term)),
    }));
    const fits = kinds[kind]?.[1];
    const sole = data.instructions.findIndex(([set, index]) => `${set} ${index}` === instruction);
    const asked = label ? givers(label, judge) : [];
    const selected = [];
    for (const cell of data.cells) {
      if (Object.entries(wanted).some(([name, value]) => value !== "" && value !== cell[name])) continue;
      for (let row = cell.start; row < cell.end; row++) {
        if (instruction && rows.instruction[row] !== sole) continue;
        if (!sought.every((term) => term.texts[rows.text[row]] || term.instructions[rows.instruction[row]])) continue;
        if (fits && !fits(row, judge)) continue;
        if (label && !asked.some((each) => labelOf(row, each) === label)) continue;
        selected.push(row);
      }
    }
    return selected;
  };

  // How many of these rows got each label, for each judge.
  const tally = (chosen) => rows.verdicts.map((column) => {
    const given = new Int32Array(data.verdicts.length + 1);
    for (const row of chosen) given[column[row] + 1] += 1;
    const counts = new Map();
    given.forEach((count, at) => {
      const label = at === 0 ? "no verdict" : data.verdicts[at - 1][1] || (data.verdicts[at - 1][0] ? "refusal" : "other");
      if (count) counts.set(label, (counts.get(label) ?? 0) + count);
    });
    return counts;
  });

  const record = (row) => {
    const cell = data.cells[rows.cell[row]];
    const [, index, instruction] = data.instructions[rows.instruction[row]];
    const { checkpoint: target, prompt, instructions, intervention, direction, source, control, layer, coefficient, unit, layers, sites, positions } = cell;
    const result = { target, prompt, instructions, intervention, direction, source, control, layer, coefficient, unit, layers, sites, positions, index, instruction, completion: data.texts[rows.text[row]], n_tokens: rows.tokens[row] };
    const judged = (at, prefix) => data.judges.forEach((name, judge) => {
      const [refusal, label, evidence] = verdict(at, judge);
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
  return { data, rows, kinds, verdict, select, tally, record };
};
