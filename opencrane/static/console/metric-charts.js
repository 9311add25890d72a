// Draws every <canvas data-metric-chart> as lines over time, with the Chart.js that the skin brings.
// The data's `unit` says how values read; colours are those of the theme and follow it.
(function () {
  "use strict";

  const charts = [];
  const units = {
    percent: function (value) { return value.toLocaleString("en-US", { maximumFractionDigits: 1 }) + " %"; },
    bytes: function (value) { return (value / 1073741824).toLocaleString("en-US", { maximumFractionDigits: 1 }) + " GiB"; },
    seconds: function (value) { return value.toLocaleString("en-US", { maximumFractionDigits: 1 }) + " s"; },
    count: function (value) { return value.toLocaleString("en-US"); }
  };

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function dress(chart) {
    const tone = {
      sum: colour("--color-primary-600"), day: colour("--color-primary-400"), limit: colour("--oc-bad"),
      text: colour("--oc-subtle"), grid: colour("--oc-border")
    };
    chart.data.datasets.forEach(function (dataset) {
      dataset.borderColor = dataset.backgroundColor = tone[dataset.tone] || tone.sum;
    });
    chart.options.scales.x.ticks.color = chart.options.scales.y.ticks.color = tone.text;
    chart.options.scales.y.grid.color = tone.grid;
    chart.options.plugins.legend.labels.color = tone.text;
    chart.update();
  }

  function draw(canvas) {
    const data = JSON.parse(canvas.dataset.metricChart);
    const read = units[data.unit];
    data.datasets.forEach(function (dataset) {
      dataset.pointRadius = data.labels.length > 2 ? 0 : 3;
      dataset.pointHitRadius = 8;
      dataset.borderWidth = 2;
      dataset.spanGaps = true;
      dataset.borderDash = dataset.tone === "limit" ? [6, 4] : [];
    });
    const chart = new window.Chart(canvas.getContext("2d"), {
      type: "line",
      data: data,
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        scales: {
          x: { grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 16 } },
          y: { beginAtZero: true, grid: {}, ticks: { callback: read, maxTicksLimit: 5 } }
        },
        plugins: {
          legend: { display: data.datasets.length > 1, position: "bottom", labels: { boxWidth: 12 } },
          tooltip: { callbacks: { label: function (item) { return item.dataset.label + ": " + read(item.parsed.y); } } }
        }
      }
    });
    charts.push(chart);
    dress(chart);
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("canvas[data-metric-chart]").forEach(draw);
    new MutationObserver(function () { charts.forEach(dress); })
      .observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
  });
}());
