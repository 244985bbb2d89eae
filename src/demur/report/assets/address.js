// The address of the page: what comes after "#" holds the view, so that a link to it opens the same view. The filters of the completions,
// the folds that a reader opened or closed, and the section that a reader went to are in it. A hash without "=" is a link to a section.
const pageAddress = (() => {
  const folds = [...document.querySelectorAll("details[id]:not(#browser)")];
  const atFirst = new Map(folds.map((fold) => [fold, fold.open]));
  const readers = [];
  let filters = new URLSearchParams();
  let section = "";

  const read = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const changed = (open) => folds.filter((fold) => fold.open === open && atFirst.get(fold) !== open).map((fold) => fold.id).join(" ");
  const write = () => {
    const state = new URLSearchParams(filters);
    for (const [key, value] of [["open", changed(true)], ["closed", changed(false)]]) if (value) state.set(key, value);
    if (section && state.size) state.set("at", section);
    const text = state.size ? `#${state}` : section ? `#${section}` : "";
    if (text !== location.hash) history.replaceState(null, "", text || location.href.split("#")[0]);
  };
  const filtersOf = (state) => {
    const rest = new URLSearchParams(state);
    for (const key of ["open", "closed", "at"]) rest.delete(key);
    return rest;
  };
  // Opens every fold around an element, so that it can be seen.
  const unfold = (element) => {
    for (let fold = element?.closest("details:not(#browser)"); fold; fold = fold.parentElement.closest("details:not(#browser)")) fold.open = true;
  };
  // Scrolls to an element, and again whenever the page changes its height, because figures are drawn late. This ends when the reader
  // does something, or after some seconds.
  let letGo = () => {};
  const goTo = (element, block = "start") => {
    letGo();
    if (!element) return;
    const place = () => element.scrollIntoView({ block, behavior: "instant" });
    const heights = new ResizeObserver(place);
    const ended = new AbortController();
    letGo = () => { heights.disconnect(); ended.abort(); };
    for (const kind of ["wheel", "touchstart", "keydown", "pointerdown"]) addEventListener(kind, letGo, { passive: true, signal: ended.signal });
    setTimeout(letGo, 5000);
    place();
    heights.observe(document.body);
  };
  const show = () => {
    const state = read();
    if (!location.hash.includes("=")) {
      section = decodeURIComponent(location.hash.slice(1));
      const target = document.getElementById(section);
      unfold(target);
      goTo(target);
      write();
      return;
    }
    filters = filtersOf(state);
    section = state.get("at") ?? "";
    const ids = (key) => new Set((state.get(key) ?? "").split(" "));
    const [open, closed] = [ids("open"), ids("closed")];
    for (const fold of folds) fold.open = open.has(fold.id) || (atFirst.get(fold) && !closed.has(fold.id));
    for (const reader of readers) reader(filters);
    const first = section || (filters.size ? "" : [...open][0]);
    if (!first) return;
    unfold(document.getElementById(first));
    goTo(document.getElementById(first));
  };
  for (const fold of folds) fold.addEventListener("toggle", write);
  addEventListener("hashchange", show);
  return {
    // Called with the filters whenever the address names some.
    onFilters: (reader) => { readers.push(reader); },
    filters: () => filters,
    goTo,
    keep: (state) => { filters = state; section = state.size ? "" : "completions"; write(); },
    show,
  };
})();
