// What both Node clients' checks share: the servers, and what the server says it can do.
export const MODEL = "penstock-tiny";
export const HI = [{ role: "user", content: "Hello!" }];
export const URL_ = process.env.PENSTOCK_URL;
export const BROKEN = [process.env.PENSTOCK_FAILING_URL, process.env.PENSTOCK_DYING_URL];
const REFUSED = ["unsupported_parameter", "unknown_url"];

export const SCHEMA = {
  type: "object",
  properties: { sunny: { type: "boolean" } },
  required: ["sunny"],
  additionalProperties: false,
};
export const TOOLS = [{ type: "function", function: { name: "weather", parameters: SCHEMA } }];
export const FORMAT = {
  type: "json_schema",
  json_schema: { name: "weather", strict: true, schema: SCHEMA },
};

// Skips a check only when the server itself answers that it cannot do this.
export async function needs(test, path, fields) {
  const response = await fetch(URL_ + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: MODEL, ...fields }),
  });
  const answer = await response.json();
  if (!response.ok && REFUSED.includes(answer.error.code)) {
    test.skip(`the server answers ${response.status}: ${answer.error.message}`);
    return false;
  }
  return true;
}
