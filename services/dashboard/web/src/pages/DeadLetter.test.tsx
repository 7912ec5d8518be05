import { render, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { Payload } from "./DeadLetter";

function field(text: string, name: string | null = null, expected: string | null = null) {
  return { text, name, expected };
}

it("highlights invalid fields and shows the payload as it is", () => {
  render(
    <Payload
      lines={[
        { number: 1, fields: [field("O", "tag"), field("a\\|b"), field("12,50", "o_totalprice", "a decimal number"), field("")] },
        { number: 3, fields: [field("OLI", "tag"), field("", "l_linenumber", "a whole number")] },
      ]}
    />,
  );
  const marks = [...document.querySelectorAll("mark")].map((mark) => mark.textContent);
  expect(marks).toEqual(["12,50", "∅"]);
  expect(screen.getByTitle("expected a decimal number").textContent).toBe("12,50");
  expect(document.querySelector(".payload-line")?.textContent).toBe("O|a\\|b|12,50|");
});
