import { type SyntheticEvent, useState } from "react";
import { live, useLive } from "../api/live";
import { token } from "../api/client";

/** Asks for the token where the dashboard wants one; it is kept for this tab alone. */
export function SignIn() {
  const [value, setValue] = useState("");
  // Drawn again with each refusal, the second one too.
  useLive((now) => now.connection);
  const tried = token.get() !== null;
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    token.set(value.trim());
    live.start();
  };
  return (
    <main className="signin">
      <form onSubmit={submit} className="panel">
        <h1>nomnom</h1>
        <p>This dashboard asks for a token. It is kept in this tab only.</p>
        {tried && (
          <p className="field-error" role="alert">
            That token was not accepted.
          </p>
        )}
        <label htmlFor="token">Token</label>
        <input
          id="token"
          type="password"
          autoComplete="current-password"
          required
          value={value}
          onChange={(event) => setValue(event.target.value)}
        />
        <button type="submit" className="button button-main">
          Open the dashboard
        </button>
      </form>
    </main>
  );
}
