"use strict";
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  // Some browsers keep nothing for files.
  const kept = () => { try { return localStorage.getItem("fishr-theme"); } catch { return null; } };
  const keep = (theme) => { try { localStorage.setItem("fishr-theme", theme); } catch { } };
  const system = matchMedia("(prefers-color-scheme: dark)");

  // Okabe and Ito's palette, darker on white and lighter on black.
  const palettes = {
    light: ["#0072B2", "#C94F00", "#00815F", "#B5558F", "#A87400", "#2F8FC4", "#5B5B5B", "#6A51A3", "#7F5539", "#B00040"],
    dark: ["#4BA3E3", "#FF8A3D", "#2FC79A", "#E59BC4", "#F0B429", "#9AD8FF", "#C9C9C9", "#B7A3F0", "#D9A679", "#FF7A9C"],
  };

  function config(theme) {
    const style = getComputedStyle(root), color = (name) => style.getPropertyValue(name).trim();
    const text = color("--text"), quiet = color("--quiet"), line = color("--line");
    const labels = { labelColor: quiet, titleColor: text, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
    return {
      background: "transparent", font: "system-ui, sans-serif",
      axis: { ...labels, gridColor: line, domainColor: line, tickColor: line, labelOverlap: true, labelSeparation: 4 },
      legend: { ...labels, orient: "bottom", direction: "horizontal", labelLimit: 260, layout: { bottom: { anchor: "start", direction: "vertical" } }, columns: { signal: "max(1, floor(containerSize()[0] / 190))" } },
      header: labels, view: { stroke: null }, range: { category: palettes[theme] },
      text: { color: text }, rule: { color: quiet }, line: { strokeWidth: 1.8 },
    };
  }

  const views = [];
  async function draw(theme) {
    const settings = config(theme);
    while (views.length) views.pop().finalize();
    for (const figure of document.querySelectorAll(".chart")) {
      const plot = figure.querySelector(".plot"), spec = JSON.parse(figure.querySelector("script").textContent);
      const renderer = "many" in plot.dataset ? "canvas" : "svg";
      plot.view = (await vegaEmbed(plot, spec, { actions: false, config: settings, renderer, tooltip: { theme } })).view;
      views.push(plot.view);
    }
    root.dataset.drawn = theme;
  }

  let drawing = Promise.resolve();
  function show(theme) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
    drawing = drawing.then(() => draw(theme));
  }
  const chosen = () => kept() ?? (system.matches ? "dark" : "light");
  button.addEventListener("click", () => {
    const theme = root.dataset.theme === "dark" ? "light" : "dark";
    keep(theme);
    show(theme);
  });
  system.addEventListener("change", () => show(chosen()));
  show(chosen());

  // What is undefined comes last, in both directions.
  function order(one, other) {
    if (!one || !other) return (one ? 0 : 1) - (other ? 0 : 1);
    const difference = Number(one) - Number(other);
    return Number.isNaN(difference) ? one.localeCompare(other, "en", { numeric: true }) : difference;
  }
  document.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const index = head.cellIndex, body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[index].dataset.key;
    const sign = (one, other) => (key(one) && key(other) && down ? -1 : 1);
    body.append(...[...body.rows].sort((one, other) => sign(one, other) * order(key(one), key(other))));
  });
})();
