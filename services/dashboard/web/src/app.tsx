import { useEffect, useRef, useState } from "react";
import { Link, Redirect, Route, Switch, useLocation } from "wouter";
import { live, useLive } from "./api/live";
import { Banners } from "./components/Banners";
import { Shortcuts } from "./components/Shortcuts";
import { SignIn } from "./components/SignIn";
import { EmptyState } from "./components/states";
import { ThemeButton, toggleTheme } from "./components/theme";
import { short } from "./format";
import { DeadLetter } from "./pages/DeadLetter";
import { DeadLetters } from "./pages/DeadLetters";
import { Entities } from "./pages/Entities";
import { Health } from "./pages/Health";
import { Message } from "./pages/Message";
import { Messages } from "./pages/Messages";
import { Overview } from "./pages/Overview";
import { Rows } from "./pages/Rows";

const SECTIONS = [
  { path: "/", name: "Overview", icon: "M3 12h4l3-8 4 16 3-8h4" },
  { path: "/messages", name: "Messages", icon: "M4 6h16v12H4zM4 7l8 6 8-6" },
  { path: "/entities", name: "Entities", icon: "M4 5h16v14H4zM4 10h16M10 5v14" },
  { path: "/dead-letters", name: "Dead letters", icon: "M12 3l9 17H3zM12 10v4M12 17v.5" },
  { path: "/system", name: "Health", icon: "M12 20s-8-5-8-11a4.5 4.5 0 0 1 8-2.5A4.5 4.5 0 0 1 20 9c0 6-8 11-8 11z" },
] as const;

/** The layout of every page: navigation, connection state and banners. */
export function App() {
  const [path, navigate] = useLocation();
  const [help, setHelp] = useState(false);
  const unauthorized = useLive((now) => now.connection.state === "unauthorized");
  const main = useRef<HTMLElement>(null);
  const section = SECTIONS.find((each) => (each.path === "/" ? path === "/" : path.startsWith(each.path)));
  const dead = useLive((now) => now.snapshot?.dead_letters ?? 0);
  const lag = useLive((now) => now.snapshot?.lag?.total ?? 0);

  useEffect(() => {
    live.start();
    return live.stop;
  }, []);
  useEffect(() => {
    document.title = `${lag > 0 ? `(${short(lag)}) ` : ""}${section?.name ?? "nomnom"} · nomnom`;
  }, [section?.name, lag]);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const typing = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
      if (typing && event.key === "Escape" && event.target instanceof HTMLElement) event.target.blur();
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      const wanted = SECTIONS[Number(event.key) - 1];
      if (wanted !== undefined) navigate(wanted.path);
      else if (event.key === "t") toggleTheme();
      else if (event.key === "?") setHelp(true);
      else if (event.key === "/") {
        event.preventDefault();
        const search = document.querySelector<HTMLElement>("[data-search]");
        if (search === null) navigate("/messages");
        else search.focus();
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [navigate]);

  if (unauthorized) return <SignIn />;
  return (
    <div className="layout">
      <a className="skip-link" href="#main">
        Skip to main content
      </a>
      <header className="sidebar">
        <Link href="/" className="brand">
          <img src="/icon.svg" alt="" width="22" height="22" /> nomnom
        </Link>
        <nav aria-label="Pages">
          {SECTIONS.map((each, at) => (
            <Link key={each.path} href={each.path} aria-current={each === section ? "page" : undefined}>
              <svg aria-hidden="true" viewBox="0 0 24 24" width="20" height="20">
                <path d={each.icon} />
              </svg>
              <span className="nav-label">{each.name}</span>
              {each.path === "/dead-letters" && dead > 0 && (
                <span className="badge">
                  {short(dead)}
                  <span className="visually-hidden">{dead === 1 ? " dead letter" : " dead letters"}</span>
                </span>
              )}
              <kbd aria-hidden="true">{at + 1}</kbd>
            </Link>
          ))}
        </nav>
        <div className="sidebar-footer">
          <ConnectionState />
          <ThemeButton />
          <button type="button" className="icon-button" aria-label="Keyboard shortcuts" onClick={() => setHelp(true)}>
            ?
          </button>
        </div>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <Banners />
        <Switch>
          <Route path="/" component={Overview} />
          <Route path="/messages" component={Messages} />
          <Route path="/messages/:id">{({ id }) => <Message id={id} />}</Route>
          <Route path="/entities" component={Entities} />
          <Route path="/entities/:name">{({ name }) => <Rows key={name} name={name} />}</Route>
          <Route path="/dead-letters" component={DeadLetters} />
          <Route path="/dead-letters/:sequence">{({ sequence }) => <DeadLetter sequence={sequence} />}</Route>
          <Route path="/system" component={Health} />
          {/* Earlier versions used this path; bookmarks still do. */}
          <Route path="/records/*?">
            <Redirect to={path.replace("/records", "/entities") + location.search} replace />
          </Route>
          <Route>
            <section className="panel">
              <EmptyState title="Page not found">
                <Link href="/">Go to the overview</Link>
              </EmptyState>
            </section>
          </Route>
        </Switch>
      </main>
      {help && <Shortcuts sections={SECTIONS.map((each) => each.name)} close={() => setHelp(false)} />}
    </div>
  );
}

function ConnectionState() {
  const state = useLive((now) => now.connection.state);
  const label = { connecting: "connecting", live: "live", lost: "disconnected", unauthorized: "signed out" }[state];
  return (
    <span className={`connection connection-${state}`} role="status">
      <span aria-hidden="true" className="connection-dot" /> {label}
    </span>
  );
}
