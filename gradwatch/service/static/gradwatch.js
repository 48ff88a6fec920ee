// Fetches the page again and puts its main part in the place of the old one:
// what is scrolled, opened or selected stays as it is.
"use strict";

(() => {
  const root = document.documentElement;
  const every = 1000 * Number(root.dataset.refresh);

  const selected = () => {
    const selection = getSelection();
    return selection !== null && !selection.isCollapsed;
  };

  const replace = (text) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.querySelector("main");
    const old = document.querySelector("main");
    if (fresh === null || old === null) return;
    for (const details of old.querySelectorAll("details[open][id]")) {
      fresh.querySelector(`#${details.id}`)?.setAttribute("open", "");
    }
    const [x, y] = [scrollX, scrollY];
    old.replaceWith(document.adoptNode(fresh));
    scrollTo(x, y);
    document.title = page.title;
  };

  const refresh = async () => {
    if (!document.hidden && !selected()) {
      try {
        const answer = await fetch(location.href, { cache: "no-store" });
        const text = await answer.text();
        if (!answer.headers.get("Content-Type")?.startsWith("text/html")) {
          throw new Error(text);
        }
        replace(text);
        root.classList.remove("unanswered");
      } catch {
        root.classList.add("unanswered");
      }
    }
    setTimeout(refresh, every);
  };

  setTimeout(refresh, every);
})();
