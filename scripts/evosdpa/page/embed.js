window.chartsReady = (async () => {
  const root = document.documentElement, failed = [], specs = {}, selects = document.querySelectorAll("select[data-choose]");
  const draw = async (plot, spec) => {
    const label = plot.getAttribute("aria-label");
    await vegaEmbed(plot, spec, {mode: "vega-lite", renderer: "svg", actions: false});
    plot.setAttribute("role", "img");  // Vega calls each of its pictures "Vega visualization"
    plot.setAttribute("aria-label", label);
    plot.removeAttribute("aria-roledescription");
  };
  let done = 0;
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => one.open = true));
  for (const ready of await Promise.allSettled([window.libraryReady, window.blocksReady]))
    if (ready.status === "rejected") {
      console.error("the page keeps its still pictures", ready.reason);
      root.dataset.failed = "all";
      root.dataset.charts = 0;
      return {};
    }
  for (const block of document.querySelectorAll('script[type="application/json"][data-chart]')) {
    const plot = document.getElementById(block.dataset.chart), still = plot.innerHTML;
    try {
      const spec = JSON.parse(block.textContent);
      plot.innerHTML = "";
      await draw(plot, spec);
      specs[block.dataset.chart] = spec;
      done += 1;
    } catch (error) {
      plot.innerHTML = still;
      failed.push(block.dataset.chart);
      console.error(block.dataset.chart, error);
    }
  }
  let turn = 0;
  const choose = async name => {
    const mine = ++turn;  // a later choice ends an earlier one that still draws
    for (const one of selects) one.value = name;
    for (const block of document.querySelectorAll("script[data-choices]")) {
      const kept = JSON.parse(block.textContent), found = kept.of[name], figure = document.getElementById(block.dataset.choices);
      const plot = figure.querySelector(".plot"), spec = specs[plot.id];
      if (mine !== turn) return;
      if (!found || !spec) continue;
      const [answer, bars] = found, question = kept.question.replace("{}", () => name);
      figure.querySelector("[data-question]").textContent = question;
      figure.querySelector(".answer").textContent = answer;
      plot.setAttribute("aria-label", `${question} ${answer}`);
      const value = (bar, field, at) => field === "low" || field === "high" ? bar[at] : kept.texts[bar[at]];
      const values = bars.map((bar, place) => ({place, ...Object.fromEntries(kept.fields.map((field, at) => [field, value(bar, field, at)]))}));
      if (values.length) await draw(plot, {...spec, height: kept.step * values.length, data: {values}});
      else plot.innerHTML = "";
    }
    root.dataset.chosen = name;
  };
  for (const one of selects) {
    one.addEventListener("change", () => choose(one.value));
    one.closest(".choose").hidden = false;
  }
  root.dataset.failed = failed.join(" ");
  root.dataset.charts = done;
  return {draw};
})();
