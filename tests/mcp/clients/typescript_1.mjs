// The TypeScript SDK 1.x: as python_2.py.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const plan = JSON.parse(process.argv[2]);
const said = (line) => console.log(JSON.stringify(line));
const capabilities = plan.opensLinks ? { elicitation: { url: {} } } : {};
const client = new Client({ name: "test", version: "1" }, { capabilities });
if (plan.opensLinks) {
  client.setRequestHandler(ElicitRequestSchema, async (request) => {
    const answer = await fetch(`${plan.person}?url=${encodeURIComponent(request.params.url)}`);
    return { action: (await answer.json()).action };
  });
}
const requestInit = { headers: { Authorization: `Bearer ${plan.key}` } };
await client.connect(new StreamableHTTPClientTransport(new URL(plan.url), { requestInit }));
said({ tools: (await client.listTools()).tools.map((tool) => tool.name) });
for (const [name, args] of plan.calls) {
  try {
    const result = await client.callTool({ name, arguments: args });
    said({ isError: result.isError ?? false, data: result.structuredContent, text: result.content[0].text });
  } catch (error) {
    said({ error: { code: error.code, message: error.message, data: error.data } });
  }
}
await client.close();
