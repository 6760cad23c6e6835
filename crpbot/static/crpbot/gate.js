/* Behaviour of the pages: relative times, charts, and a notice when the service does not answer. */
"use strict";

(() => {
  const CHART_REFRESH_MS = 2000;
  const AGO_REFRESH_MS = 5000;

  // ---- relative times ("38 minutes ago") are updated without a request

  const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

  function ago(seconds) {
    if (seconds < 1) return "just now";
    const [size, unit] = UNITS.find(([size]) => seconds >= size);
    const count = Math.floor(seconds / size);
    return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
  }

  function refreshTimes() {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      time.textContent = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
    }
  }

  // ---- charts: figures are loaded as JSON and drawn in the colours of the page

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // element → figure

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function withTheme(layout) {
    const axis = { gridcolor: colour("--rule"), zerolinecolor: colour("--rule"), linecolor: colour("--rule") };
    const axes = Object.fromEntries(
      Object.keys({ xaxis: 0, yaxis: 0, ...layout })
        .filter((key) => /^[xy]axis\d*$/.test(key))
        .map((key) => [key, { automargin: true, ...layout[key], ...axis }]),
    );
    return {
      ...layout,
      ...axes,
      title: undefined,
      autosize: true,
      height: undefined,
      width: undefined,
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
      font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 12 },
      colorway: ["--series-1", "--series-2", "--series-3"].map(colour),
      margin: { ...layout.margin, l: 48, r: 20, t: layout.legend ? 30 : 10, b: 40 },
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--rule"), font: { color: colour("--ink") } },
    };
  }

  function draw(element, figure) {
    drawn.set(element, figure);
    element.querySelector(".chart-waits")?.remove();
    const config = { displayModeBar: false, responsive: true };
    Plotly.react(element, figure.data, withTheme(figure.layout || {}), config);
  }

  function showText(elements, text) {
    for (const element of elements) {
      const placeholder = element.querySelector(".chart-waits");
      if (placeholder) placeholder.textContent = text;
    }
  }

  // The figures of a group come from its data-charts address. A saved report contains them, in the element #id.
  async function fetchFigures(address) {
    if (address.startsWith("#")) return JSON.parse(document.querySelector(address).textContent);
    const answer = await fetch(address, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
    return answer.json();
  }

  async function load(group) {
    const elements = [...group.querySelectorAll("[data-chart]")];
    const again = () => setTimeout(() => group.isConnected && load(group), CHART_REFRESH_MS);
    try {
      const { charts, is_moving: isMoving } = await fetchFigures(group.dataset.charts);
      for (const element of elements) {
        const figure = charts[element.dataset.chart];
        if (figure) draw(element, figure);
        else showText([element], element.dataset.empty || "No data yet");
      }
      if (isMoving) again();
    } catch (failure) {
      showText(elements, `The chart could not be loaded: ${failure.message}`);
      if (group.hasAttribute("data-moving")) again();
    }
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((entry) => entry.isIntersecting)) {
      seen.unobserve(entry.target);
      load(entry.target);
    }
  }, { rootMargin: "300px" });

  function watchCharts(root) {
    for (const group of root.querySelectorAll("[data-charts]")) seen.observe(group);
  }

  dark.addEventListener("change", () => {
    for (const [element, figure] of drawn) {
      if (element.isConnected) draw(element, figure);
    }
  });

  // ---- htmx: a sign-in page is not swapped into a page, and a notice shows when the service does not answer

  const silence = document.getElementById("silence");

  function setConnected(isConnected) {
    silence.hidden = isConnected;
  }

  document.body.addEventListener("htmx:sendError", () => setConnected(false));
  document.body.addEventListener("htmx:timeout", () => setConnected(false));
  document.body.addEventListener("htmx:afterRequest", (event) => {
    const xhr = event.detail.xhr;
    if (xhr && xhr.status >= 500) setConnected(false);
    else if (xhr && xhr.status > 0) setConnected(true);
  });
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const target = new URL(event.detail.xhr.responseURL || location.href);
    if (target.pathname === document.body.dataset.signIn) {
      event.detail.shouldSwap = false;
      location.reload();
    }
    // A file that is too large is refused before any page could show it: the sentence is plain text.
    if (event.detail.xhr.status === 413) {
      event.detail.target.textContent = event.detail.xhr.responseText;
    }
  });
  document.body.addEventListener("htmx:afterSwap", refreshTimes);

  // ---- an opened decision focuses its reason

  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.decision[open]")) event.target.querySelector("textarea")?.focus();
  }, true);

  // ---- a form is sent once: a second click while it is being sent does nothing

  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => {
    for (const form of document.forms) delete form.dataset.sent;
  });

  // ---- what was found in a file holds until another file or coin is chosen

  document.getElementById("add-candles")?.addEventListener("change", () => {
    document.getElementById("preview").replaceChildren();
  });

  setInterval(refreshTimes, AGO_REFRESH_MS);
  watchCharts(document);
})();
