/* What a style sheet cannot do. The pages read without it. */
"use strict";
(() => {
  // What scrolls sideways is a stop of the tab key, and only while it does.
  const BOXES = ".bd-article div.math, .bd-article mjx-container, .bd-article .pst-scrollable-table-container, .bd-article .text_html, .bd-article figure";
  const mark = () =>
    document.querySelectorAll(BOXES).forEach((box) => {
      const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
      if (scrolls) box.tabIndex = 0;
      else if (box.dataset.scrolls) box.removeAttribute("tabindex");
      if (scrolls) box.dataset.scrolls = "true";
      else delete box.dataset.scrolls;
    });
  let later;
  addEventListener("resize", () => {
    clearTimeout(later);
    later = setTimeout(mark, 100);
  });
  addEventListener("load", () => {
    mark();
    window.MathJax?.startup?.promise?.then(mark);
  });

  // Paper is white: a page printed from dark mode takes the light colours.
  let theme;
  addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    if (theme) document.documentElement.dataset.theme = theme;
  });
})();
