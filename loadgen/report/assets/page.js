// Draws the page's charts from the numbers in it. The tables are there without it.
"use strict";
(() => {
  const drawings = JSON.parse(document.getElementById("drawings").textContent);
  const places = document.querySelectorAll("[data-chart]");
  const HEIGHT = 300;
  const COLOURS = 8;
  let charts = [];

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const number = (value) =>
    value >= 1e6 ? `${+(value / 1e6).toPrecision(4)}M`
      : value >= 1e4 ? `${+(value / 1e3).toPrecision(4)}k`
        : `${+value.toPrecision(4)}`;

  // 1/(1-q) as a percentile: 2 is 50 %, 1000 is 99.9 %.
  const percentile = (inverse) => `${+(100 - 100 / inverse).toFixed(6)} %`;

  // The nines, and the median among them.
  const nines = (least, most) => {
    const all = [1, 2];
    for (let inverse = 10; inverse < 1e9; inverse *= 10) all.push(inverse);
    return all.filter((inverse) => inverse >= least * 0.999 && inverse <= most * 1.001);
  };

  const isDecade = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;

  const colour = (at) => style(`--line-${(at % COLOURS) + 1}`);

  const series = (drawing) => {
    let solid = 0;
    return drawing.lines.map((line) => ({
      label: line.name,
      stroke: line.is_dashed ? style("--failed") : colour(solid++),
      width: line.is_dashed ? 1.5 : 2,
      dash: line.is_dashed ? [6, 5] : undefined,
      spanGaps: false,
      points: { show: drawing.x.length < 3 },
      value: (_, value) => (value == null ? "–" : `${number(value)} ${drawing.unit}`),
    }));
  };

  const options = (drawing, width) => {
    const isPercentile = drawing.axis === "percentile";
    const isLogarithmic = drawing.scale === "logarithmic";
    const axis = {
      stroke: style("--faint"),
      grid: { stroke: style("--rule"), width: 1 },
      ticks: { stroke: style("--rule"), width: 1 },
      font: `12px ${getComputedStyle(document.body).fontFamily}`,
      labelFont: `12px ${getComputedStyle(document.body).fontFamily}`,
    };
    const x = isPercentile
      ? { ...axis, label: "percentile", values: (_, splits) => splits.map(percentile),
          splits: (_u, _at, least, most) => nines(least, most), filter: (_, splits) => splits }
      : { ...axis, label: "seconds" };
    const decades = { filter: (_, splits) => splits.map((value) => (isDecade(value) ? value : null)) };
    const y = {
      ...axis, label: drawing.unit, size: 64,
      values: (_, splits) => splits.map((value) => (value == null ? "" : number(value))),
      ...(isLogarithmic ? { grid: { ...axis.grid, ...decades }, ticks: { ...axis.ticks, ...decades } } : {}),
    };
    return {
      width,
      height: HEIGHT,
      scales: {
        x: { time: false, distr: isPercentile ? 3 : 1, range: (_, least, most) => [least, most > least ? most : least + 1] },
        y: isLogarithmic ? { distr: 3 } : { range: (_, _least, most) => [0, most > 0 ? most * 1.08 : 1] },
      },
      padding: [12, 28, 0, 0],
      cursor: { drag: { x: true, y: false } },
      legend: { markers: { width: 0, fill: (chart, at) => chart.series[at].stroke(chart, at) } },
      series: [
        { label: isPercentile ? "percentile" : "second",
          value: (_, value) => (value == null ? "–" : isPercentile ? percentile(value) : number(value)) },
        ...series(drawing),
      ],
      axes: [x, y],
    };
  };

  const draw = () => {
    charts.forEach((chart) => chart.destroy());
    charts = [...places].map((place) => {
      const drawing = drawings[place.dataset.chart];
      const data = [drawing.x, ...drawing.lines.map((line) => line.y)];
      return new uPlot(options(drawing, place.clientWidth), data, place);
    });
  };

  const resize = () =>
    charts.forEach((chart, at) => {
      const width = places[at].clientWidth;
      if (width !== chart.width) chart.setSize({ width, height: HEIGHT });
    });

  draw();
  document.querySelectorAll("details").forEach((table) => { table.open = false; });
  addEventListener("resize", resize);
  // Colours are read when a chart is drawn; paper is light whatever the screen is.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
})();
