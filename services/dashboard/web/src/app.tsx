import { useEffect, useRef, useState } from "react";
import { Link, Redirect, Route, Switch, useLocation } from "wouter";
import { live, useLive } from "./api/live";
import { short } from "./format";
import { DeadLetters } from "./pages/DeadLetters";
import { Entities } from "./pages/Entities";
import { HealthPage } from "./pages/HealthPage";
import { Letter } from "./pages/Letter";
import { Message } from "./pages/Message";
import { Messages } from "./pages/Messages";
import { Overview } from "./pages/Overview";
import { Rows } from "./pages/Rows";
import { Banners } from "./parts/Banners";
import { Shortcuts } from "./parts/Shortcuts";
import { SignIn } from "./parts/SignIn";
import { Empty } from "./parts/states";
import { ThemeButton, turnTheme } from "./parts/theme";

const PLACES = [
  { path: "/", name: "Overview", sign: "M3 12h4l3-8 4 16 3-8h4" },
  { path: "/messages", name: "Messages", sign: "M4 6h16v12H4zM4 7l8 6 8-6" },
  { path: "/entities", name: "Entities", sign: "M4 5h16v14H4zM4 10h16M10 5v14" },
  { path: "/dead-letters", name: "Dead letters", sign: "M12 3l9 17H3zM12 10v4M12 17v.5" },
  { path: "/system", name: "Health", sign: "M12 20s-8-5-8-11a4.5 4.5 0 0 1 8-2.5A4.5 4.5 0 0 1 20 9c0 6-8 11-8 11z" },
] as const;

/** The frame of every page: where one can go, how the connection is, what is wrong. */
export function App() {
  const [path, go] = useLocation();
  const [help, setHelp] = useState(false);
  const refused = useLive((now) => now.connection.state === "refused");
  const main = useRef<HTMLElement>(null);
  const place = PLACES.find((each) => (each.path === "/" ? path === "/" : path.startsWith(each.path)));
  const dead = useLive((now) => now.snapshot?.dead_letters ?? 0);
  const lag = useLive((now) => now.snapshot?.lag?.total ?? 0);

  useEffect(() => {
    live.start();
    return live.stop;
  }, []);
  useEffect(() => {
    document.title = `${lag > 0 ? `(${short(lag)}) ` : ""}${place?.name ?? "nomnom"} · nomnom`;
  }, [place?.name, lag]);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const typing = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
      if (typing && event.key === "Escape" && event.target instanceof HTMLElement) event.target.blur();
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      const wanted = PLACES[Number(event.key) - 1];
      if (wanted !== undefined) go(wanted.path);
      else if (event.key === "t") turnTheme();
      else if (event.key === "?") setHelp(true);
      else if (event.key === "/") {
        event.preventDefault();
        const search = document.querySelector<HTMLElement>("[data-search]");
        if (search === null) go("/messages");
        else search.focus();
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [go]);

  if (refused) return <SignIn />;
  return (
    <div className="frame">
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <header className="side">
        <Link href="/" className="brand">
          <img src="/icon.svg" alt="" width="22" height="22" /> nomnom
        </Link>
        <nav aria-label="Pages">
          {PLACES.map((each, at) => (
            <Link key={each.path} href={each.path} aria-current={each === place ? "page" : undefined}>
              <svg aria-hidden="true" viewBox="0 0 24 24" width="20" height="20">
                <path d={each.sign} />
              </svg>
              <span className="place-name">{each.name}</span>
              {each.path === "/dead-letters" && dead > 0 && (
                <span className="badge">
                  {short(dead)}
                  <span className="hidden"> letters</span>
                </span>
              )}
              <kbd aria-hidden="true">{at + 1}</kbd>
            </Link>
          ))}
        </nav>
        <div className="side-foot">
          <ConnectionMark />
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
          <Route path="/dead-letters/:sequence">{({ sequence }) => <Letter sequence={sequence} />}</Route>
          <Route path="/system" component={HealthPage} />
          <Route path="/records/*?">
            <Redirect to={path.replace("/records", "/entities") + location.search} replace />
          </Route>
          <Route>
            <section className="panel">
              <Empty title="No such page">
                <Link href="/">Go to the overview</Link>
              </Empty>
            </section>
          </Route>
        </Switch>
      </main>
      {help && <Shortcuts places={PLACES.map((each) => each.name)} close={() => setHelp(false)} />}
    </div>
  );
}

function ConnectionMark() {
  const state = useLive((now) => now.connection.state);
  const words = { connecting: "connecting", live: "live", lost: "disconnected", refused: "signed out" }[state];
  return (
    <span className={`connection connection-${state}`} role="status">
      <span aria-hidden="true" className="connection-dot" /> {words}
    </span>
  );
}
