(async () => {
  const root = document.documentElement, failed = [];
  let done = 0;
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => one.open = true));
  for (const block of document.querySelectorAll('script[type="application/json"][data-chart]')) {
    const plot = document.getElementById(block.dataset.chart), still = plot.innerHTML;
    try {
      const spec = JSON.parse(block.textContent);
      plot.innerHTML = "";
      await vegaEmbed(plot, spec, {mode: "vega-lite", renderer: "svg", actions: false});
      done += 1;
    } catch (error) {
      plot.innerHTML = still;
      failed.push(block.dataset.chart);
      console.error(block.dataset.chart, error);
    }
  }
  root.dataset.failed = failed.join(" ");
  root.dataset.charts = done;
})();
