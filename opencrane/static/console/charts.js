// Draws every <canvas data-chart>, with the Chart.js that the skin brings. What `data-chart` holds is written down in
// opencrane/console/charts.py. Colours are those of the theme, and follow it when it changes.
(function () {
  "use strict";

  function number(digits, after) {
    return function (value) { return value.toLocaleString("en-US", digits) + after; };
  }

  const oneDigit = { maximumFractionDigits: 1 };
  const units = {
    // Of small sums as many places as it takes to see them.
    usd: function (value) {
      const places = value !== 0 && Math.abs(value) < 0.01 ? { maximumSignificantDigits: 2 } : {};
      return value.toLocaleString("en-US", Object.assign({ style: "currency", currency: "USD" }, places));
    },
    percent: number(oneDigit, " %"),
    bytes: number(oneDigit, " GiB"),
    seconds: number(oneDigit, " s"),
    count: number({}, "")
  };

  // Bytes are drawn in GiB, so that the axis has round numbers.
  const scales = { bytes: 1 / 1073741824 };

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const colour = function (name) { return style.getPropertyValue(name).trim(); };
    return {
      main: colour("--oc-chart-main"),
      second: colour("--oc-chart-second"),
      third: colour("--oc-chart-third"),
      limit: colour("--oc-bad"),
      text: colour("--oc-subtle"),
      grid: colour("--oc-border")
    };
  }

  function dress(chart) {
    const tones = theme();
    chart.data.datasets.forEach(function (dataset) {
      dataset.borderColor = dataset.backgroundColor = tones[dataset.tone];
    });
    chart.options.scales.x.ticks.color = chart.options.scales.y.ticks.color = tones.text;
    chart.options.scales.y.grid.color = tones.grid;
    chart.options.plugins.legend.labels.color = tones.text;
    chart.update();
  }

  function dataset(series, scale) {
    const known = series.values.filter(function (value) { return value !== null; });
    const isLimit = series.tone === "limit";
    const isLonely = known.length < 2 && !isLimit;
    return {
      type: series.kind,
      label: series.label,
      tone: series.tone,
      data: series.values.map(function (value) { return value === null ? null : value * scale; }),
      // Lines lie above bars. A line of one point would not be seen without it.
      order: series.kind === "line" ? 0 : 1,
      pointStyle: series.kind === "bar" ? "rect" : isLonely ? "circle" : "line",
      pointRadius: isLonely ? 3 : 0,
      pointHitRadius: 8,
      borderWidth: series.kind === "bar" ? 0 : isLimit ? 1.5 : 2,
      borderDash: isLimit ? [6, 4] : [],
      spanGaps: true,
      maxBarThickness: 48
    };
  }

  function draw(canvas) {
    const data = JSON.parse(canvas.dataset.chart);
    const read = units[data.unit];
    const scale = scales[data.unit] || 1;
    const chart = new window.Chart(canvas.getContext("2d"), {
      type: "line",
      data: { labels: data.labels, datasets: data.series.map(function (each) { return dataset(each, scale); }) },
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        scales: {
          x: { grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 16 } },
          y: {
            beginAtZero: true,
            suggestedMax: data.unit === "percent" ? 100 : undefined,
            ticks: { callback: read, maxTicksLimit: 6, precision: data.unit === "count" ? 0 : undefined }
          }
        },
        plugins: {
          legend: { display: data.series.length > 1, position: "bottom", labels: { boxWidth: 24, usePointStyle: true } },
          tooltip: { callbacks: { label: function (item) { return item.dataset.label + ": " + read(item.parsed.y); } } }
        }
      }
    });
    dress(chart);
    return chart;
  }

  document.addEventListener("DOMContentLoaded", function () {
    const charts = Array.from(document.querySelectorAll("canvas[data-chart]"), draw);
    new MutationObserver(function () { charts.forEach(dress); })
      .observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
  });
}());
