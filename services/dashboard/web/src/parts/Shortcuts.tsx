import { useEffect, useRef } from "react";

/** What the keyboard does, in a dialog. */
export function Shortcuts({ places, close }: { places: readonly string[]; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const keys: [string, string][] = [
    ...places.map((name, at): [string, string] => [String(at + 1), name]),
    ["/", "Find"],
    ["t", "Light or dark"],
    ["esc", "Leave a field, close this"],
  ];
  return (
    <dialog ref={dialog} className="shortcuts" aria-labelledby="shortcuts-title" onClose={close}>
      <h2 id="shortcuts-title">Keyboard</h2>
      <dl>
        {keys.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog">
        <button type="submit" className="button">
          Close
        </button>
      </form>
    </dialog>
  );
}
