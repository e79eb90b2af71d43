"""The MCP server and the gateway to other people's. Only what is imported late knows the protocol's SDK."""
