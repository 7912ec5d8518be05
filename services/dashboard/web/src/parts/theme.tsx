import { useState } from "react";

const KEY = "nomnom.theme";
type Theme = "light" | "dark";

function current(): Theme {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === "light" || chosen === "dark") return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Turn to the other theme, and remember it. */
export function turnTheme(): Theme {
  const next = current() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem(KEY, next);
  return next;
}

/** The button that turns the theme. */
export function ThemeButton() {
  const [theme, setTheme] = useState<Theme>(current);
  return (
    <button
      type="button"
      className="icon-button"
      aria-label={`Use the ${theme === "dark" ? "light" : "dark"} theme`}
      onClick={() => setTheme(turnTheme())}
    >
      {theme === "dark" ? "☀" : "☾"}
    </button>
  );
}
