import { render, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { fields, Payload } from "./DeadLetter";

it("splits a line at unescaped separators", () => {
  expect(fields("O|1|a\\|b|")).toEqual(["O", "1", "a\\|b", ""]);
  expect(fields("O")).toEqual(["O"]);
  expect(fields("")).toEqual([""]);
  expect(fields("O||x\\\\|y")).toEqual(["O", "", "x\\\\", "y"]);
});

it("highlights invalid fields by line and position", () => {
  render(
    <Payload
      text={"O|1|2|F|12,50\nOLI|1||3"}
      problems={[
        { line: 1, position: 4, expected: "a decimal number" },
        { line: 2, position: 2, expected: "a whole number" },
      ]}
    />,
  );
  const marks = [...document.querySelectorAll("mark")].map((mark) => mark.textContent);
  expect(marks).toEqual(["12,50", "∅"]);
  expect(screen.getByTitle("expected a decimal number").textContent).toBe("12,50");
});
