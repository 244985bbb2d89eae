"use strict";
// The text of compressed data: of Plotly, and of the completions of a large run.
const unpacked = (packed) => {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};

// The text of the completions. They are in the page, or in a file beside it that is loaded as a script when they are first shown.
// `then` gets the text, at once if it is in the page; `failed` gets a sentence.
const completionsText = (then, failed) => {
  const source = document.getElementById("completions-data");
  const { beside, digest } = source.dataset;
  if (!beside) {
    then(source.textContent);
    return;
  }
  if (typeof DecompressionStream === "undefined") {
    failed(`This browser cannot decompress the completions in ${beside}; a newer one can.`);
    return;
  }
  window.demurCompletions = (own, packed) => {
    if (own !== digest) failed(`The file ${beside} beside this page belongs to another report. Write the report again with demur report.`);
    else unpacked(packed).then(then);
  };
  const script = document.createElement("script");
  script.addEventListener("error", () => failed(`The completions are in the file ${beside}, which is not beside this page. Copy it from the run folder.`));
  script.src = beside;
  document.head.append(script);
};
