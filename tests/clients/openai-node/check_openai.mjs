// openai-node: raw calls, the stream() and parse() helpers, tools, errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { BROKEN, FORMAT, HI, MODEL, TOOLS, URL_, needs } from "./probe.mjs";

const clientOf = (baseURL) => new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const client = clientOf(URL_);
const ask = { model: MODEL, messages: HI, max_tokens: 128, temperature: 0 };
const required = { tools: TOOLS, tool_choice: "required" };

test("a whole answer, and the same streamed", async () => {
  const whole = await client.chat.completions.create(ask);
  assert.ok(whole.choices[0].message.content);
  assert.ok(whole._request_id);
  let text = "";
  let usage;
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create({ ...ask, ...options })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("the stream helper adds up the final answer", async () => {
  const final = await client.chat.completions.stream(ask).finalChatCompletion();
  assert.ok(final.choices[0].message.content);
  assert.equal(final.choices[0].message.role, "assistant");
});

test("completions and models", async () => {
  const answer = await client.completions.create({ model: MODEL, prompt: "Once", max_tokens: 8 });
  assert.equal(typeof answer.choices[0].text, "string");
  assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
});

for (const stream of [false, true]) {
  test(`a required call, stream: ${stream}`, async (t) => {
    if (!(await needs(t, "/chat/completions", { messages: HI, max_tokens: 1, ...required }))) return;
    const asked = { ...ask, ...required };
    const answer = stream
      ? await client.chat.completions.stream(asked).finalChatCompletion()
      : await client.chat.completions.create(asked);
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(call.function.name, "weather");
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["sunny"]);
    assert.ok(call.id);
  });
}

test("a JSON schema is kept to", async (t) => {
  const form = { response_format: FORMAT };
  if (!(await needs(t, "/chat/completions", { messages: HI, max_tokens: 1, ...form }))) return;
  const answer = await client.chat.completions.parse({ ...ask, ...form });
  assert.equal(typeof answer.choices[0].message.parsed.sunny, "boolean");
});

test("responses, whole and streamed", async (t) => {
  const input = { input: "Hello!", max_output_tokens: 128 };
  if (!(await needs(t, "/responses", input))) return;
  const answer = await client.responses.create({ model: MODEL, ...input });
  assert.ok(answer.output_text);
  const kinds = [];
  for await (const event of await client.responses.create({ model: MODEL, ...input, stream: true })) {
    kinds.push(event.type);
  }
  assert.equal(kinds[0], "response.created");
  assert.equal(kinds.at(-1), "response.completed");
});

test("errors have their class and code", async () => {
  const unknown = client.chat.completions.create({ ...ask, model: "nope" });
  await assert.rejects(unknown, (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    assert.ok(error.requestID);
    return true;
  });
  const messages = [{ role: "user", content: "a ".repeat(9000) }];
  const long = client.chat.completions.create({ ...ask, messages });
  await assert.rejects(long, { code: "context_length_exceeded", param: "messages" });
});

for (const [place, url] of BROKEN.entries()) {
  const how = place === 0 ? "told" : "cut";
  test(`a stream that ends early rejects: ${how}`, async () => {
    const long = { ...ask, max_tokens: 200 };
    await assert.rejects(async () => {
      for await (const _ of await clientOf(url).chat.completions.create({ ...long, stream: true }));
    });
    await assert.rejects(clientOf(url).chat.completions.stream(long).finalChatCompletion());
  });
}
