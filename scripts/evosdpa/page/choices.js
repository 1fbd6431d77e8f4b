// Which ladders are shown and which variant is taken apart: chosen in the page, kept in the address, so that a link shows the same.
(async () => {
  const {draw} = await window.chartsReady;
  if (!draw) return;  // nothing to choose from could be unpacked
  const make = (name, values = {}, ...children) => {
    const made = Object.assign(document.createElement(name), values);
    made.append(...children);
    return made;
  };
  const bar = document.querySelector("[data-ladders]"), selects = bar ? [...bar.querySelectorAll("select")] : [];
  const variants = [...document.querySelectorAll("select[data-choose]")];
  const kept = bar ? JSON.parse(document.querySelector("[data-ladders-of]").textContent) : null;
  const place = document.querySelector("[data-chosen-ladders]");
  const order = bar ? [...selects[2].options].map(option => option.value) : [];  // modes as the page has them
  const usual = one => [...one.options].find(option => option.defaultSelected).value;

  const table = found => {
    const lines = found.table.map(([ranked, ...cells]) => make("tr", {className: ranked ? "" : "out"},
      ...cells.map((text, at) => make(at === 1 ? "th" : "td", {textContent: kept.texts[text], className: at === 12 ? "note" : ""}))));
    const head = make("tr", {}, ...kept.titles.map(textContent => make("th", {textContent})));
    const scroll = make("div", {className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Table, scrolls sideways"},
      make("table", {className: "rungs"}, make("thead", {}, head), make("tbody", {}, ...lines)));
    const more = found.more ? [make("p", {className: "hint", textContent: `${found.more} more rows in gap.csv.`})] : [];
    return make("details", {}, make("summary", {textContent: `Table: ${found.table.length} rows`}), scroll, ...more);
  };
  const figure = async (found, number) => {
    if (typeof found === "string") return void place.append(make("p", {className: "answer", textContent: found}));
    const plot = make("div", {className: "plot", id: `plot-chosen-${number}`, role: "img", ariaLabel: `${found.question} ${found.answer}`});
    place.append(make("figure", {}, make("h3", {textContent: found.question}), make("p", {className: "answer", textContent: found.answer}), plot, table(found)));
    if (!found.rungs.length) return;
    const value = (field, one) => kept.numbers.includes(field) ? one : kept.texts[one];
    const values = found.rungs.map(rung => Object.fromEntries(kept.fields.map((field, at) => [field, value(field, rung[at])])));
    const slots = {$values: values, $domain: found.domain, $ticks: found.ticks, $band: found.band};
    const spec = JSON.parse(JSON.stringify(kept.spec), (_, one) => typeof one === "string" && Object.hasOwn(slots, one) ? slots[one] : one);
    await draw(plot, {...spec, height: kept.spec.height * values.length}).catch(error => console.error(plot.id, error));
  };
  let turn = 0;
  const show = async () => {
    const mine = ++turn, [device, problem, mode] = selects.map(one => one.value);  // a later choice ends an earlier one that still draws
    const still = device === kept.device && problem === kept.problem, found = kept.of[device][problem];
    for (const one of document.querySelectorAll("[data-usual] > figure")) one.hidden = !still || Boolean(mode && one.dataset.mode !== mode);
    place.replaceChildren();
    const others = typeof found === "string" ? [found] : mode ? [found[mode]] : still ? [] : order.map(one => found[one]).filter(one => one && typeof one !== "string");
    place.hidden = !others.some(Boolean);
    for (const [number, one] of others.filter(Boolean).entries()) {
      if (mine !== turn) return;
      await figure(one, number);
    }
    dispatchEvent(new Event("resize"));  // pictures that were hidden take their width anew
    document.documentElement.dataset.shown = [device, problem, mode].join(" ");
  };
  const write = () => {
    const chosen = new URLSearchParams();
    for (const one of selects) if (one.value !== usual(one)) chosen.set(one.name, one.value);
    if (variants.length && variants[0].value !== usual(variants[0])) chosen.set("variant", variants[0].value);
    history.replaceState(null, "", `#${chosen}`);
  };
  const read = async () => {
    const wanted = new URLSearchParams(location.hash.slice(1)), has = (select, value) => [...select.options].some(option => option.value === value);
    const named = selects.filter(one => wanted.has(one.name) && has(one, wanted.get(one.name)));
    if (named.length) {
      for (const one of selects) one.value = named.includes(one) ? wanted.get(one.name) : usual(one);
      await show();
      bar.scrollIntoView();
    }
    const variant = wanted.get("variant");
    if (variants.length && variant !== null && has(variants[0], variant)) {
      variants[0].value = variant;
      variants[0].dispatchEvent(new Event("change"));
      if (!named.length) variants[0].closest("section").scrollIntoView();
    }
  };
  for (const one of selects) one.addEventListener("change", () => (write(), show()));
  for (const one of variants) one.addEventListener("change", write);
  addEventListener("hashchange", read);
  if (bar) bar.hidden = false;
  await read();
})();
