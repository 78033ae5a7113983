import { describe, expect, it } from "vitest";
import { describeError, problemFrom } from "./problem";

describe("problemFrom", () => {
  it("says the detail, and the parts that are wrong", () => {
    const error = problemFrom(422, {
      title: "Unprocessable Entity",
      detail: "The request cannot be read.",
      code: "invalid",
      errors: [{ location: "body.labels", message: "expected object" }],
      problems: [{ line: 4, column: 7, step: "running", message: 'There is no column "tmp"; did you mean "temp"?' }],
    });
    expect(error).toMatchObject({ message: "The request cannot be read.", status: 422, code: "invalid" });
    expect(error.details).toEqual([
      "body.labels: expected object",
      'line 4, column 7: There is no column "tmp"; did you mean "temp"?',
    ]);
  });

  it.each([
    [404, { title: "Not Found" }, "Not Found"],
    [401, undefined, "You are signed out. Sign in with an API key."],
    [502, "<html>", "The control plane is not serving at the moment. This page tries again by itself."],
    [418, null, "The control plane answered with status 418 and gave no reason."],
  ])("has words for %d with %j", (status, body, want) => {
    expect(problemFrom(status, body).message).toBe(want);
  });

  it("describes what is no problem of the API as well", () => {
    expect(describeError(new Error("x"))).toEqual({ message: "x", details: [] });
    expect(describeError("y")).toEqual({ message: "y", details: [] });
  });
});
