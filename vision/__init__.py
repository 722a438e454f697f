"""Vision: a real-time server that runs graphs of LLM prompts and streams every token."""
