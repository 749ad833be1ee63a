// A tool loop with openai-node: every second turn streams, the others do not.
// Prints one JSON object: how many turns, and all outputs. OPENAI_BASE_URL says where.
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] + "/");
const { OpenAI } = require("openai");
const client = new OpenAI({ maxRetries: 0 });

const tool = {
  type: "function",
  name: "look",
  description: "Look something up.",
  strict: false,
  parameters: { type: "object", properties: { what: { type: "string" } }, required: ["what"] },
};
const input = [{ role: "user", content: "[sim tool_calls=6 reasoning=encrypted] Look around." }];
const outputs = [];
for (;;) {
  const body = { model: "gpt-5.6", store: false, tools: [tool], input };
  const response =
    outputs.length % 2
      ? await client.responses.create(body)
      : await client.responses.stream(body).finalResponse();
  outputs.push(response.output);
  const calls = response.output.filter((item) => item.type === "function_call");
  if (!calls.length) break;
  const answers = calls.map(({ call_id }) => ({
    type: "function_call_output",
    call_id,
    output: "found",
  }));
  input.push(...response.output, ...answers);
}
console.log(JSON.stringify({ turns: outputs.length, outputs }));
