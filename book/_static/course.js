/* What a style sheet cannot do. The pages read without it. */
"use strict";
(() => {
  const LEAST = 62; // percent of its size that a formula keeps: its letters stay 10 pixels high
  const phone = matchMedia("screen and (max-width: 600px)");

  // A displayed formula shrinks to the width of its place, as far as it stays legible. Little by little: its unit is a letter's height, which a screen rounds to its dots.
  const shrink = (box) => {
    const formulas = [...box.querySelectorAll("mjx-container")].filter((formula) => formula.clientWidth);
    const fits = () => formulas.every((formula) => formula.scrollWidth <= formula.clientWidth + 1);
    box.style.fontSize = "";
    for (let size = 98; !fits() && size >= LEAST; size -= 2) box.style.fontSize = `${size}%`;
    if (!fits()) box.style.fontSize = "";
  };

  // A table that is wider than a phone: every cell with its column's header before it, and the roles that it loses when it is shown as blocks.
  const stack = (table) => {
    if (!table.dataset.labelled) {
      table.dataset.labelled = "true";
      const heads = table.tHead.rows[table.tHead.rows.length - 1].cells;
      for (const row of [...table.tBodies].flatMap((body) => [...body.rows]))
        [...row.cells].forEach((cell, column) => {
          const body = document.createElement("span");
          body.className = "cell-body";
          body.append(...cell.childNodes);
          cell.append(body);
          if (!heads[column]?.textContent.trim()) return;
          const head = heads[column].cloneNode(true);
          head.querySelectorAll("[id]").forEach((element) => element.removeAttribute("id"));
          head.querySelectorAll("a").forEach((link) => link.replaceWith(...link.childNodes));
          const label = document.createElement("span");
          label.className = "cell-head";
          label.append(...head.childNodes);
          cell.prepend(label);
        });
    }
    table.classList.add("stacked");
    roles(table).forEach(([element, role]) => element.setAttribute("role", role));
  };
  const unstack = (table) => {
    if (!table.classList.contains("stacked")) return;
    table.classList.remove("stacked");
    roles(table).forEach(([element]) => element.removeAttribute("role"));
  };
  const roles = (table) => {
    const bodies = [...table.tBodies];
    const rows = bodies.flatMap((body) => [...body.rows]);
    const cells = rows.flatMap((row) => [...row.cells]);
    return [
      [table, "table"],
      ...bodies.map((body) => [body, "rowgroup"]),
      ...rows.map((row) => [row, "row"]),
      ...cells.map((cell) => [cell, cell.tagName === "TH" ? "rowheader" : "cell"]),
    ];
  };

  // What still scrolls sideways, such as code, is a stop of the tab key, and only while it does.
  const BOXES = ".bd-article div.math, .bd-article mjx-container, .bd-article .pst-scrollable-table-container, .bd-article .text_html, .bd-article figure";
  const mark = () => {
    document.querySelectorAll(".bd-article div.math").forEach(shrink);
    document.querySelectorAll(".bd-article table").forEach((table) => {
      unstack(table);
      table.classList.remove("tight");
      if (table.offsetWidth <= table.parentElement.clientWidth + 1) return;
      if (phone.matches && table.tHead) stack(table);
      else if (table.closest(".mtl-table")) table.classList.add("tight");
    });
    document.querySelectorAll(BOXES).forEach((box) => {
      const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
      if (scrolls) box.tabIndex = 0;
      else if (box.dataset.scrolls) box.removeAttribute("tabindex");
      if (scrolls) box.dataset.scrolls = "true";
      else delete box.dataset.scrolls;
    });
  };
  let later;
  const again = () => {
    clearTimeout(later);
    later = setTimeout(mark, 100);
  };
  addEventListener("resize", again);
  addEventListener("load", () => {
    // After the formulas are drawn: a header's are copied as they are then.
    const drawn = window.MathJax?.startup?.promise;
    if (drawn) drawn.then(mark, mark);
    else mark();
  });
  // What was folded has no width until it is opened.
  document.addEventListener("toggle", again, true);

  // Paper is white: a page printed from dark mode takes the light colours.
  let theme;
  addEventListener("beforeprint", () => {
    document.querySelectorAll("img[loading]").forEach((image) => (image.loading = "eager"));
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    if (theme) document.documentElement.dataset.theme = theme;
  });
})();
