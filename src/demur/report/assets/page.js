// The theme and the interactive figures. The page contains Plotly compressed. If the browser cannot decompress it, the static figures stay.
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const say = (text) => { byId("spoken").textContent = text; };

  // A browser may forbid storage to a page opened from disk. Then the theme is not remembered.
  const theme = byId("theme");
  const kept = "demur report: theme";
  const dressed = () => root.dataset.theme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const dress = (name) => {
    if (name) root.dataset.theme = name;
    else delete root.dataset.theme;
    theme.value = name;
  };
  try { dress(["light", "dark"].find((name) => name === localStorage.getItem(kept)) ?? ""); } catch { dress(""); }
  theme.closest(".theme").hidden = false;

  const figures = new Map(JSON.parse(byId("figures-data").textContent).figures.map((figure) => [figure.name, figure]));
  const dark = Object.entries(JSON.parse(byId("figures-data").textContent).dark);
  const inked = (value) => {
    let text = JSON.stringify(value);
    if (dressed()) for (const [from, to] of dark) text = text.replaceAll(from, to);
    return JSON.parse(text);
  };
  const NARROW = 600;
  const placed = (layout, changes) => {
    for (const [path, value] of Object.entries(changes)) {
      const parts = path.split(".");
      const last = parts.pop();
      parts.reduce((inner, part) => (inner[part] ??= {}), layout)[last] = value;
    }
    return layout;
  };
  const config = { displayModeBar: false, scrollZoom: false, doubleClick: false, showTips: false };
  const draw = async (plot) => {
    const { data, layout, narrow } = inked(figures.get(plot.dataset.figure));
    const width = Math.floor(plot.clientWidth);
    if (width < NARROW) {
      placed(layout, narrow);
      layout.font.size = 11;
    }
    plot.drawnAt = width;
    plot.style.minHeight = "";
    await window.Plotly.react(plot, data, { ...layout, width, autosize: false }, config);
  };

  // The arrow keys step through the values of a figure, as pointing does, and a screen reader reads each one.
  const stops = (plot) => plot._fullData.flatMap((trace, curveNumber) => {
    if (trace.hoverinfo === "skip" || trace.visible !== true) return [];
    const subplot = `${trace.xaxis}${trace.yaxis}`;
    if (trace.type === "heatmap") return trace.z.flatMap((row, y) => row.map((_, x) => ({ curveNumber, pointNumber: [y, x], subplot })));
    return trace.x.map((_, pointNumber) => ({ curveNumber, pointNumber, subplot })).filter(({ pointNumber }) => trace.y[pointNumber] !== null);
  });
  const step = (plot, by) => {
    const all = stops(plot);
    plot.stop = Math.min(Math.max((plot.stop ?? (by > 0 ? -1 : all.length)) + by, 0), all.length - 1);
    const { subplot, ...point } = all[plot.stop];
    window.Plotly.Fx.hover(plot, [point], subplot);
    const lines = [...plot.querySelectorAll(".hoverlayer .hovertext text")].map((text) => [...text.querySelectorAll("tspan.line")].map((line) => line.textContent).join(", ") || text.textContent);
    say(lines.join("; "));
  };
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  const listen = (plot) => {
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") window.Plotly.Fx.unhover(plot);
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      step(plot, steps[event.key]);
    });
    // A click on a rate shows its completions, and a click on the point of an instruction shows that instruction in every cell.
    plot.on("plotly_click", ({ points: [point] }) => {
      const address = [point.pointNumber].flat().reduce((found, at) => found?.[at], point.data.meta?.selects);
      if (address) location.hash = address;
    });
  };

  const unpack = async () => {
    const source = await unpacked(byId("plotly").textContent);
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
    return window.Plotly !== undefined;
  };
  // A figure is drawn when it comes near the screen. Until then, empty space is kept for it.
  const plots = [...document.querySelectorAll(".plot")];
  const redraw = () => Promise.all(plots.filter((plot) => plot.drawnAt).map(draw));
  const start = async () => {
    if (!plots.length || typeof DecompressionStream === "undefined" || !(await unpack())) return;
    const near = new IntersectionObserver((changes) => {
      for (const { target, isIntersecting } of changes) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        draw(target).then(() => listen(target));
      }
    }, { rootMargin: "800px" });
    for (const plot of plots) {
      plot.hidden = false;
      plot.closest("figure").classList.add("drawn");
      const { layout, narrow } = figures.get(plot.dataset.figure);
      plot.style.minHeight = `${(plot.clientWidth < NARROW && narrow.height) || layout.height}px`;
      near.observe(plot);
    }
    let waiting = 0;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        for (const plot of plots) if (plot.drawnAt && plot.clientWidth && Math.floor(plot.clientWidth) !== plot.drawnAt) draw(plot);
      }, 120);
    });
    root.dataset.figures = "ready";
  };
  theme.addEventListener("change", () => {
    dress(theme.value);
    try { localStorage.setItem(kept, theme.value); } catch { /* not remembered */ }
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // For printing, everything that is folded is opened, except the completions.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open]):not(#browser)")];
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });
  start();
})();
