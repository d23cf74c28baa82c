/* Under each result of the search: the sections with the words, linked, and an excerpt. */
"use strict";
(() => {
  const root = document.documentElement.dataset.content_root;
  const query = new URLSearchParams(location.search).get("q") || "";
  const terms = query.toLowerCase().match(/[\p{Letter}\p{Number}]{2,}/gu) || [];
  // A word of the text may have another ending than the one that was asked for.
  const stems = terms.map((term) => (term.length > 5 ? term.slice(0, -2) : term));
  const told = {}, waiting = {};
  const EXCERPT = 220, SECTIONS = 3;

  window.courseText = (page, sections) => waiting[page]?.(sections);
  const textOf = (page) =>
    (told[page] ??= new Promise((resolve) => {
      waiting[page] = resolve;
      const script = document.createElement("script");
      script.src = `${root}_static/text/${page}.js`;
      script.onerror = () => resolve([]);
      document.head.append(script);
    }));

  const score = ([, title, text]) => {
    const low = `${title} ${title} ${text}`.toLowerCase();
    const counts = stems.map((stem) => low.split(stem).length - 1);
    return counts.filter(Boolean).length * 1000 + counts.reduce((sum, count) => sum + count, 0);
  };

  const excerpt = (text) => {
    const low = text.toLowerCase();
    const phrase = low.indexOf(query.trim().toLowerCase());
    const places = phrase >= 0 ? [phrase] : stems.map((stem) => low.indexOf(stem)).filter((place) => place >= 0);
    let start = places.length ? Math.max(0, Math.min(...places) - 60) : 0;
    if (start > 0) start = text.indexOf(" ", start) + 1;
    const shown = text.slice(start, start + EXCERPT);
    const paragraph = document.createElement("p");
    paragraph.className = "context";
    paragraph.append(start > 0 ? "… " : "");
    const pattern = stems.map((stem) => stem.replace(/[^\p{Letter}\p{Number}]/gu, "")).join("|");
    const parts = pattern ? shown.split(new RegExp(`(\\p{Letter}*(?:${pattern})\\p{Letter}*)`, "iu")) : [shown];
    parts.forEach((part, place) => {
      if (place % 2) paragraph.append(Object.assign(document.createElement("mark"), { textContent: part }));
      else paragraph.append(part);
    });
    paragraph.append(start + EXCERPT < text.length ? " …" : "");
    return paragraph;
  };

  const show = async (item) => {
    const link = item.querySelector("a");
    const [address, anchor] = link.getAttribute("href").split("#");
    const page = address.replace(/^(?:\.\.\/|\.\/)*/, "").replace(/\.html$/, "");
    const sections = await textOf(page);
    let best = anchor ? sections.filter(([id]) => id === anchor) : [];
    const whole = best.length > 0;
    if (!whole)
      best = sections.filter((section) => score(section) > 0).sort((a, b) => score(b) - score(a)).slice(0, SECTIONS);
    for (const [id, title, text] of best) {
      if (!whole && title && id !== sections[0][0]) {
        const to = Object.assign(document.createElement("a"), { href: `${address}#${id}`, textContent: title });
        const line = document.createElement("p");
        line.className = "context";
        line.append(to);
        item.append(line);
      }
      if (text) item.append(excerpt(text));
    }
  };

  const results = document.getElementById("search-results");
  if (results)
    new MutationObserver((changes) => {
      for (const change of changes)
        for (const node of change.addedNodes)
          if (node.nodeName === "LI" && node.querySelector("a")) show(node);
    }).observe(results, { childList: true, subtree: true });
})();
