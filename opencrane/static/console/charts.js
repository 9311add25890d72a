// Draws every <canvas data-chart>, with the Chart.js that the skin brings; colours are those of the theme.
(function () {
  "use strict";

  const charts = [];

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function tones() {
    return {
      day: colour("--color-primary-400"),
      sum: colour("--color-primary-600"),
      limit: colour("--oc-bad"),
      text: colour("--oc-subtle"),
      grid: colour("--oc-border")
    };
  }

  function dress(chart) {
    const tone = tones();
    chart.data.datasets.forEach(function (dataset) {
      const own = tone[dataset.tone] || tone.day;
      dataset.borderColor = own;
      dataset.backgroundColor = own;
    });
    if (!chart.options) { return; }
    ["x", "y"].forEach(function (axis) {
      chart.options.scales[axis].ticks.color = tone.text;
      chart.options.scales[axis].grid.color = axis === "x" ? "transparent" : tone.grid;
    });
    chart.options.plugins.legend.labels.color = tone.text;
    chart.update();
  }

  function draw(canvas) {
    const data = JSON.parse(canvas.dataset.chart);
    data.datasets.forEach(function (dataset) {
      if (dataset.type === "line") {
        dataset.pointRadius = 0;
        dataset.pointHitRadius = 8;
        dataset.borderWidth = dataset.tone === "limit" ? 1.5 : 2;
        dataset.borderDash = dataset.tone === "limit" ? [6, 4] : [];
      }
    });
    dress({ data: data });
    const dollars = function (value) {
      return value.toLocaleString("en-US", { style: "currency", currency: "USD" });
    };
    const chart = new window.Chart(canvas.getContext("2d"), {
      data: data,
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        scales: {
          x: { grid: {}, ticks: { maxRotation: 0, autoSkipPadding: 12 } },
          y: { beginAtZero: true, grid: {}, ticks: { callback: dollars, maxTicksLimit: 6 } }
        },
        plugins: {
          legend: { position: "bottom", labels: { boxWidth: 12 } },
          tooltip: { callbacks: { label: function (item) { return item.dataset.label + ": " + dollars(item.parsed.y); } } }
        }
      }
    });
    charts.push(chart);
    dress(chart);
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("canvas[data-chart]").forEach(draw);
    new MutationObserver(function () { charts.forEach(dress); })
      .observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
  });
}());
