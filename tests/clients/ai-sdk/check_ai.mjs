// Vercel AI SDK with @ai-sdk/openai-compatible: text whole and streamed, tools, objects, errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { BROKEN, FORMAT, HI, MODEL, SCHEMA, TOOLS, URL_, needs } from "./probe.mjs";

const modelOf = (baseURL, name = MODEL) =>
  createOpenAICompatible({
    name: "penstock",
    baseURL,
    includeUsage: true,
    supportsStructuredOutputs: true,
  }).chatModel(name);
const ask = { model: modelOf(URL_), prompt: "Hello!", maxRetries: 0, temperature: 0 };
const quiet = { onError: () => {} };

test("a whole text, and the same streamed", async () => {
  const whole = await generateText(ask);
  assert.ok(whole.text);
  assert.equal(whole.finishReason, "stop");
  const streamed = streamText(ask);
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, whole.text);
  assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
});

for (const stream of [false, true]) {
  test(`a required call, stream: ${stream}`, async (t) => {
    const fields = { messages: HI, max_tokens: 1, tools: TOOLS, tool_choice: "required" };
    if (!(await needs(t, "/chat/completions", fields))) return;
    const tools = { weather: tool({ inputSchema: jsonSchema(SCHEMA) }) };
    const asked = { ...ask, tools, toolChoice: "required", maxOutputTokens: 128 };
    const result = stream ? streamText(asked) : await generateText(asked);
    const [call] = await result.toolCalls;
    assert.equal(call.toolName, "weather");
    assert.deepEqual(Object.keys(call.input), ["sunny"]);
  });
}

test("an object of a schema", async (t) => {
  const fields = { messages: HI, max_tokens: 1, response_format: FORMAT };
  if (!(await needs(t, "/chat/completions", fields))) return;
  const { object } = await generateObject({ ...ask, schema: jsonSchema(SCHEMA) });
  assert.equal(typeof object.sunny, "boolean");
});

test("errors keep their status and words", async () => {
  const unknown = generateText({ ...ask, model: modelOf(URL_, "nope") });
  await assert.rejects(unknown, (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    assert.match(error.message, /no model of that name/);
    return true;
  });
});

for (const [place, url] of BROKEN.entries()) {
  const how = place === 0 ? "told" : "cut";
  test(`a stream that ends early gives an error: ${how}`, async () => {
    const streamed = streamText({ ...ask, ...quiet, model: modelOf(url), maxOutputTokens: 200 });
    const errors = [];
    try {
      for await (const part of streamed.fullStream) if (part.type === "error") errors.push(part);
    } catch (error) {
      errors.push(error);
    }
    assert.ok(errors.length > 0);
  });
}
