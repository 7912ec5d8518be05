import { useState } from "react";

const KEY = "nomnom.theme";
type Theme = "light" | "dark";

function currentTheme(): Theme {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === "light" || chosen === "dark") return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Switch to the other theme and store the choice. */
export function toggleTheme(): Theme {
  const next = currentTheme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem(KEY, next);
  return next;
}

/** A button that switches between the light and the dark theme. */
export function ThemeButton() {
  const [theme, setTheme] = useState<Theme>(currentTheme);
  return (
    <button
      type="button"
      className="icon-button"
      aria-label={`Switch to the ${theme === "dark" ? "light" : "dark"} theme`}
      onClick={() => setTheme(toggleTheme())}
    >
      {theme === "dark" ? "☀" : "☾"}
    </button>
  );
}
