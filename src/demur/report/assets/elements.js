// What the table of completions is made of: elements, bars of kinds of answers, and files to download.
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

// For each judge a line with a stacked bar: the share of each label among the chosen completions.
const kindLines = (data, tallies, total) => tallies.map((counts, judge) => {
  const bar = make("span", "stack");
  const words = [];
  [...new Set([...data.labels[judge], ...counts.keys()])].forEach((label, index) => {
    const given = counts.get(label) ?? 0;
    if (!given) return;
    const part = make("b", `k${index % 7}`);
    part.style.flexGrow = given;
    bar.append(part);
    words.push(`${((100 * given) / total).toFixed(total <= 100 || given === total ? 0 : 1)} % ${label}`);
  });
  bar.setAttribute("aria-hidden", "true");
  const line = make("p", "kinds");
  line.append(make("span", "judge", data.judges[judge]), bar, make("span", "detail", words.join(", ")));
  return line;
});

const csvText = (records) => {
  const head = Object.keys(records[0] ?? {});
  const quoted = (value) => {
    const text = value === null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [head, ...records.map((each) => head.map((name) => each[name]))].map((line) => `${line.map(quoted).join(",")}\r\n`).join("");
};

const download = (name, kind, type, content) => {
  const link = make("a");
  const address = URL.createObjectURL(new Blob([content], { type }));
  link.href = address;
  link.download = `${name.replace(/[^\w.-]+/g, "-")}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
};
