import { type SyntheticEvent, useState } from "react";
import { live, useLive } from "../api/live";
import { token } from "../api/client";

/** Asks for the token, if the dashboard requires one; it is stored for this tab only. */
export function SignIn() {
  const [value, setValue] = useState("");
  // Renders again after each rejected attempt.
  useLive((now) => now.connection);
  const tried = token.get() !== null;
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    token.set(value.trim());
    live.start();
  };
  return (
    <main className="sign-in">
      <form onSubmit={submit} className="panel">
        <h1>nomnom</h1>
        <p>This dashboard requires a token. The token is stored for this tab only.</p>
        {tried && (
          <p className="field-error" role="alert">
            Invalid token.
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
        <button type="submit" className="button button-primary">
          Sign in
        </button>
      </form>
    </main>
  );
}
