import { useEffect, useRef } from "react";

/** A dialog that lists the keyboard shortcuts. */
export function Shortcuts({ sections, close }: { sections: readonly string[]; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const keys: [string, string][] = [
    ...sections.map((name, at): [string, string] => [String(at + 1), name]),
    ["/", "Search messages"],
    ["t", "Toggle light/dark theme"],
    ["esc", "Leave input or dialog"],
  ];
  return (
    <dialog ref={dialog} className="shortcuts" aria-labelledby="shortcuts-title" onClose={close}>
      <h2 id="shortcuts-title">Keyboard shortcuts</h2>
      <dl>
        {keys.map(([key, action]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{action}</dd>
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
