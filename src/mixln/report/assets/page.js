(() => {
  "use strict";
  const panels = JSON.parse(document.getElementById("panels").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displayModeBar: false, displaylogo: false, showTips: false };

  for (const [id, panel] of Object.entries(panels)) {
    if (touch) {
      // A finger on a figure scrolls the page; it does not zoom the figure.
      panel.layout.dragmode = false;
      panel.layout.xaxis.fixedrange = panel.layout.yaxis.fixedrange = true;
    }
    Plotly.newPlot(id, panel.data, panel.layout, config);
  }

  // A click in any legend hides or shows that placement or model in every figure, and the panels that are its own.
  document.addEventListener("click", (event) => {
    const pressed = event.target.closest("button[data-key]");
    if (!pressed) return;
    const key = pressed.dataset.key;
    const visible = pressed.getAttribute("aria-pressed") !== "true";
    for (const button of document.querySelectorAll(`button[data-key="${key}"]`)) {
      button.setAttribute("aria-pressed", String(visible));
    }
    for (const own of document.querySelectorAll(`.panel[data-key="${key}"]`)) {
      own.hidden = !visible;
      if (visible) Plotly.Plots.resize(own.querySelector(".plot"));
    }
    for (const [id, panel] of Object.entries(panels)) {
      if (document.getElementById(id).closest(".panel[data-key]")) continue;
      const traces = panel.data.flatMap((trace, index) => (String(trace.meta) === key ? [index] : []));
      if (traces.length) Plotly.restyle(id, { visible }, traces);
    }
  });
})();
