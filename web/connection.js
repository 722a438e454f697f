/**
 * The page's way to the server: tickets, requests, and a WebSocket that comes back.
 *
 * The law: a connection that was not closed by the page is opened again, later and later, until it
 * stands or the server refuses; what is said first on every socket is up to the page, which knows
 * how far it has come. The key travels in a header only, never in an address.
 */

// A restarted server listens again within a second; one that is down for long is not hammered.
const FIRST_RETRY_MS = 300;
const LAST_RETRY_MS = 10_000;

// A network that vanished closes no socket. Two silent intervals are well under a minute, and a
// ping every 15 s costs nothing.
const PING_MS = 15_000;

// A request that is not answered by then is as good as lost, and is made again.
const REQUEST_MS = 10_000;

/** The server answered, and said no. `code` and `message` are its own. */
export class Refused extends Error {
  constructor(error, status) {
    super(error.message);
    this.code = error.code;
    this.temporary = status === 503;
  }
}

const UNSENDABLE = { code: "unauthorized", message: "the key has characters that no key has" };

/** The `data` of an answer of the API. Raises Refused, or TypeError when nothing answers. */
export async function call(method, path, key) {
  if (/[^ -~]/.test(key)) throw new Refused(UNSENDABLE, 401);
  const headers = { Authorization: `Vision ${key}` };
  const response = await fetch(path, { method, headers, signal: AbortSignal.timeout(REQUEST_MS) });
  const answer = await response.json();
  if (!response.ok) throw new Refused(answer.error, response.status);
  return answer.data;
}

/** Milliseconds to wait before an attempt, spread so that many pages do not come at once. */
function retryDelay(failures) {
  const longest = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures);
  return longest * (0.5 + Math.random() / 2);
}

/**
 * One conversation over as many sockets as it takes. Of the page it wants: `greet()`, the messages
 * to begin a socket with; `hear(message)`; `show(state)`, with "connecting", "connected", "waiting"
 * (to try again) or "closed"; `lose()`, when a socket that had been greeted is gone; and
 * `refuse(error)`, after which there are no more attempts.
 */
export class Connection {
  #page;
  #key;
  #socket = null;
  #attempt = null;
  #ping = null;
  #failures = 0;
  #closed = false;

  constructor(key, page) {
    this.#key = key;
    this.#page = page;
    this.#open();
  }

  /** Send now; false when there is no socket, and the next greeting has to say it. */
  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** End it, whatever it was doing. */
  close() {
    this.#closed = true;
    clearTimeout(this.#attempt);
    clearInterval(this.#ping);
    this.#socket?.close();
    this.#page.show("closed");
  }

  /** Try again later, from a new ticket on. */
  retry() {
    this.#socket?.close();
    this.#socket = null;
    clearInterval(this.#ping);
    this.#page.show("waiting");
    this.#attempt = setTimeout(() => this.#open(), retryDelay(this.#failures));
    this.#failures += 1;
  }

  async #open() {
    this.#page.show("connecting");
    const ticket = await this.#ticket();
    if (this.#closed || ticket === null) return;
    const address = new URL("api/completion/ws", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    address.searchParams.set("ticket", ticket);
    this.#listen(new WebSocket(address));
  }

  /** A ticket, or null when there is none now: another attempt follows unless it was refused. */
  async #ticket() {
    try {
      return (await call("POST", "api/ticket", this.#key)).ticket;
    } catch (error) {
      if (this.#closed) return null;
      if (error instanceof Refused && !error.temporary) {
        this.close();
        this.#page.refuse(error);
      } else {
        this.retry();
      }
      return null;
    }
  }

  #listen(socket) {
    this.#socket = socket;
    let greeted = false;
    const gone = () => {
      if (this.#closed || socket !== this.#socket) return;
      this.retry();
      if (greeted) this.#page.lose();
    };
    let heard = true;
    const ping = () => {
      if (!heard) return gone();
      heard = false;
      this.send({ type: "ping" });
    };
    socket.onopen = () => {
      greeted = true;
      this.#page.show("connected");
      for (const message of this.#page.greet()) this.send(message);
      this.#ping = setInterval(ping, PING_MS);
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      heard = true;
      this.#failures = 0;
      this.#page.hear(JSON.parse(data));
    };
    socket.onclose = gone;
  }
}
