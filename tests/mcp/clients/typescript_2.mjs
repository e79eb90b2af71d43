// The TypeScript client 2.x: as python_2.py.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const plan = JSON.parse(process.argv[2]);
const said = (line) => console.log(JSON.stringify(line));
const capabilities = plan.opensLinks ? { elicitation: { url: {} } } : {};
const client = new Client({ name: "test", version: "1" }, { capabilities, versionNegotiation: { mode: "auto" } });
if (plan.opensLinks) {
  client.setRequestHandler("elicitation/create", async (request) => {
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
