/* The pages' small behaviours: times that stay true, charts, and a word when the service falls silent. */
"use strict";

(() => {
  const CHART_REFRESH_MS = 2000;
  const AGO_REFRESH_MS = 5000;

  // ---- "38 minutes ago" stays true without asking the server

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

  // ---- charts: a figure comes as JSON from the address its place names, and wears the page's colours

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const figures = new Map();

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function dressed(layout) {
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

  function draw(place, figure) {
    figures.set(place, figure);
    place.querySelector(".chart-waits")?.remove();
    const calm = { displayModeBar: false, responsive: true };
    Plotly.react(place, figure.data, dressed(figure.layout || {}), calm);
  }

  function say(places, text) {
    for (const place of places) {
      const words = place.querySelector(".chart-waits");
      if (words) words.textContent = text;
    }
  }

  // A page's figures come from the address its group names; a saved report holds its own, in the element named by #id.
  async function figuresOf(address) {
    if (address.startsWith("#")) return JSON.parse(document.querySelector(address).textContent);
    const answer = await fetch(address, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
    return answer.json();
  }

  async function load(group) {
    const places = [...group.querySelectorAll("[data-chart]")];
    const again = () => setTimeout(() => group.isConnected && load(group), CHART_REFRESH_MS);
    try {
      const { charts, is_moving: isMoving } = await figuresOf(group.dataset.charts);
      for (const place of places) {
        const figure = charts[place.dataset.chart];
        if (figure) draw(place, figure);
        else say([place], place.dataset.empty || "Nothing to draw yet");
      }
      if (isMoving) again();
    } catch (failure) {
      say(places, `The chart could not be loaded: ${failure.message}`);
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
    for (const [place, figure] of figures) {
      if (place.isConnected) draw(place, figure);
    }
  });

  // ---- htmx: a signed-out session is not swapped into a page, and a silent service is said to be silent

  const silence = document.getElementById("silence");

  function heard(isHeard) {
    silence.hidden = isHeard;
  }

  document.body.addEventListener("htmx:sendError", () => heard(false));
  document.body.addEventListener("htmx:timeout", () => heard(false));
  document.body.addEventListener("htmx:afterRequest", (event) => {
    const xhr = event.detail.xhr;
    if (xhr && xhr.status >= 500) heard(false);
    else if (xhr && xhr.status > 0) heard(true);
  });
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const landed = new URL(event.detail.xhr.responseURL || location.href);
    if (landed.pathname === document.body.dataset.signIn) {
      event.detail.shouldSwap = false;
      location.reload();
    }
  });
  document.body.addEventListener("htmx:afterSwap", refreshTimes);

  // ---- a decision that unfolds takes the keyboard along

  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.decision[open]")) event.target.querySelector("textarea")?.focus();
  }, true);

  // ---- sent once: a second click on a form under way does nothing

  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => {
    for (const form of document.forms) delete form.dataset.sent;
  });

  setInterval(refreshTimes, AGO_REFRESH_MS);
  watchCharts(document);
})();
