// The upstream of the benchmarks: an OpenAI-compatible server that costs as little as can be.
//
// The law: it must never be what is measured. So nothing is parsed: what to answer stands in the
// request as `tokens=100 gap=20` (milliseconds; 0 is as fast as the socket takes it), looked for in
// the raw body, and every chunk is made once. Each token's text is " tok", which stands nowhere
// else in the stream, so that a reader counts tokens without parsing either.
//
//     node benchmarks/upstream.mjs PORT
//
// GET /seen tells how many streams were closed by their reader, when the last one was
// (CLOCK_MONOTONIC, nanoseconds, which other processes of the machine share) and how many tokens
// were written in all.

import http from "node:http";

const created = Math.floor(Date.now() / 1000);
const TOKEN_USAGE = { prompt_tokens: 10, completion_tokens: 100, total_tokens: 110 };
const BURST = 16; // tokens between two turns of the loop: others get theirs

const seen = { tokens: 0, closed: 0, closedAt: "0", requests: 0 };

function chunk(choice, more = {}) {
  const head = { id: "chatcmpl-bench", object: "chat.completion.chunk", created, model: "bench" };
  const choices = choice === null ? [] : [{ index: 0, logprobs: null, finish_reason: null, ...choice }];
  return `data: ${JSON.stringify({ ...head, choices, ...more })}\n\n`;
}

const ROLE = Buffer.from(chunk({ delta: { role: "assistant", content: "" } }));
const TOKEN = Buffer.from(chunk({ delta: { content: " tok" } }));
const END = Buffer.from(
  chunk({ delta: {}, finish_reason: "stop" }) + chunk(null, { usage: TOKEN_USAGE }) + "data: [DONE]\n\n",
);
const WHOLE = Buffer.from(
  JSON.stringify({
    id: "chatcmpl-bench", object: "chat.completion", created, model: "bench", usage: TOKEN_USAGE,
    choices: [{ index: 0, message: { role: "assistant", content: " tok" }, finish_reason: "stop" }],
  }),
);

function wish(body, name, otherwise) {
  const at = body.indexOf(`${name}=`);
  return at < 0 ? otherwise : Number.parseInt(body.toString("latin1", at + name.length + 1, at + name.length + 9), 10);
}

function stream(response, tokens, gap) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  response.write(ROLE);
  let left = tokens;
  const end = () => response.end(END);
  const one = () => {
    seen.tokens += 1;
    response.write(TOKEN);
    return --left === 0;
  };
  let timer;
  if (gap > 0) {
    timer = setInterval(() => one() && (clearInterval(timer), end()), gap);
  } else {
    const some = () => {
      for (let n = 0; n < BURST; n++) if (one()) return end();
      timer = setImmediate(some);
    };
    some();
  }
  response.on("close", () => {
    if (response.writableFinished) return;
    clearInterval(timer);
    clearImmediate(timer);
    seen.closed += 1;
    seen.closedAt = String(process.hrtime.bigint());
  });
}

function answer(request, response, body) {
  seen.requests += 1;
  if (/"stream":\s*true/.test(body.toString("latin1"))) {
    return stream(response, wish(body, "tokens", 1), wish(body, "gap", 0));
  }
  const whole = () => response.writeHead(200, { "Content-Type": "application/json", "Content-Length": WHOLE.length }).end(WHOLE);
  const delay = wish(body, "gap", 0);
  return delay ? setTimeout(whole, delay) : whole();
}

const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
  if (request.method === "GET") return response.end(JSON.stringify(seen));
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => answer(request, response, parts.length === 1 ? parts[0] : Buffer.concat(parts)));
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", 4096, () => console.log(server.address().port));
