// Light or dark: the viewer's choice where there is one, the system's otherwise.

import { useSyncExternalStore } from "react";

export type Theme = "light" | "dark";

const key = "outfeed-theme";

function chosen(): Theme | undefined {
  try {
    const text = localStorage.getItem(key);
    return text === "light" || text === "dark" ? text : undefined;
  } catch {
    // Storage is switched off: the system's theme it is.
    return undefined;
  }
}

const system = () => window.matchMedia("(prefers-color-scheme: dark)");

function apply(): void {
  document.documentElement.dataset.theme = chosen() ?? (system().matches ? "dark" : "light");
}

/** Sets the theme and follows the system. Called once, before the first drawing. */
export function startTheme(): void {
  apply();
  system().addEventListener("change", apply);
}

export function setTheme(theme: Theme): void {
  try {
    // The system's own theme is not a choice to remember.
    if ((theme === "dark") === system().matches) localStorage.removeItem(key);
    else localStorage.setItem(key, theme);
  } catch {
    document.documentElement.dataset.theme = theme;
    return;
  }
  apply();
}

const read = (): Theme => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");

function subscribe(listener: () => void): () => void {
  const observer = new MutationObserver(listener);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return () => observer.disconnect();
}

export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, read);
}
