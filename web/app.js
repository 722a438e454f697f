/**
 * The page: run a promptList, watch its nodes fill, come back to it.
 *
 * The law: the address names the mission (`#mission=…`), so a reload, the back button and a shared
 * link all lead to it; the session's storage holds the key and the promptList, and neither leaves
 * this tab. Whatever happens to the connection, the mission goes on at the server, and the page
 * goes on from the last event that it has seen.
 */

import { Connection, Refused, call } from "./connection.js";
import { Mission, NotAPromptList, parsePromptList } from "./mission.js";
import { GraphView } from "./view.js";

const byId = (id) => document.getElementById(id);
const form = byId("run-form");
const keyField = byId("key");
const editor = byId("prompt-list");
const runButton = byId("run");
const cancelButton = byId("cancel");
const view = new GraphView(byId("levels"), byId("node-template"), () => showMission(session));

const CONNECTION = {
  closed: "idle",
  connecting: "connecting…",
  connected: "connected",
  waiting: "connection lost, trying again…",
};

const ENDS = { succeeded: "Finished", failed: "Finished with errors", cancelled: "Cancelled" };

// Refusals that time heals: the same subscription is asked for again on a new connection.
const TEMPORARY = ["store_unavailable", "overloaded"];

/** One mission, from the wish to run or watch it until its end. */
class Session {
  #key;
  #promptList;
  #connection;
  #asked = false;
  mission = null;
  live = true;
  cancelling = false;

  /** With a mission id it watches; without one it runs the promptList. */
  constructor(key, promptList, missionId = null) {
    this.#key = key;
    this.#promptList = promptList;
    if (missionId) this.#show(missionId);
    this.#connection = new Connection(key, this);
  }

  cancel() {
    this.cancelling = true;
    if (this.mission) this.#connection.send(this.#cancelMessage());
    else if (!this.#asked) this.end();
    showMission(this);
  }

  end() {
    this.live = false;
    this.#connection.close();
    showControls();
  }

  // --- what the connection wants of the page -----------------------------------------------------

  show(state) {
    if (session === this || session === null) showConnection(state);
  }

  greet() {
    if (!this.mission) {
      this.#asked = true;
      return [{ type: "generate", requestId: "run", promptList: this.#promptList }];
    }
    const { id, cursor } = this.mission;
    const subscribe = { type: "subscribe", requestId: "watch", missionId: id, after: cursor };
    return this.cancelling ? [subscribe, this.#cancelMessage()] : [subscribe];
  }

  hear(message) {
    if (message.seq) this.#apply(message);
    else if (message.type === "accepted") this.#accept(message.missionId);
    else if (message.type === "error") this.#fail(message);
  }

  lose() {
    if (this.mission) return;
    this.end();
    showError("The connection broke before the server took the mission. Run it again.");
  }

  refuse(error) {
    this.end();
    if (!this.mission?.cursor) leave(); // nothing of it has been seen, so nothing is shown
    showError(`The server refused: ${error.message}`, error.code === "unauthorized");
    showControls();
  }

  // --- what the server says ----------------------------------------------------------------------

  #accept(missionId) {
    remember("vision.mission", JSON.stringify({ id: missionId, promptList: this.#promptList }));
    history.replaceState(null, "", `#mission=${missionId}`);
    this.#show(missionId);
    byId("mission").scrollIntoView({ block: "nearest" }); // on a phone it is below the editor
    if (this.cancelling) this.#connection.send(this.#cancelMessage());
  }

  #show(missionId) {
    this.mission = new Mission(missionId, this.#promptList);
    view.draw(this.mission);
    showMission(this);
  }

  #apply(event) {
    view.update(this.mission.apply(event));
    if (this.mission.over) this.#finish();
  }

  async #finish() {
    this.end();
    const query = `api/completion/mission-query?missionId=${this.mission.id}`;
    try {
      this.mission.addTimes(await call("GET", query, this.#key));
      if (session === this) view.update([...this.mission.nodes.keys()]);
    } catch (error) {
      if (session === this) showError(`The nodes' times are not known: ${error.message}`);
    }
  }

  #fail({ requestId, code, message }) {
    if (requestId === "cancel") {
      this.cancelling = false;
      showError(message);
      showMission(this);
    } else if (requestId === "watch" && code === "unknown_cursor") {
      // The server lost the end of its log in a crash, and with it what this page had seen of it.
      this.mission.reset();
      view.draw(this.mission);
      for (const greeting of this.greet()) this.#connection.send(greeting);
    } else if (requestId === "watch" && TEMPORARY.includes(code)) {
      this.#connection.retry();
    } else {
      if (code === "unknown_mission") history.replaceState(null, "", location.pathname);
      this.refuse(new Refused({ code, message }));
    }
  }

  #cancelMessage() {
    return { type: "cancel", requestId: "cancel", missionId: this.mission.id };
  }
}

let session = null;

// --- the controls --------------------------------------------------------------------------------

function run() {
  let promptList;
  try {
    promptList = parsePromptList(editor.value);
  } catch (error) {
    if (!(error instanceof NotAPromptList)) throw error;
    return showError(error.message);
  }
  if (missionInAddress()) history.pushState(null, "", location.pathname);
  leave();
  session = new Session(keyField.value, promptList);
  showControls();
}

/** Watch the mission that the address names, if it names one and there is a key to ask with. */
function watch() {
  leave();
  const id = missionInAddress();
  if (id && keyField.value) {
    const kept = JSON.parse(sessionStorage.getItem("vision.mission"));
    session = new Session(keyField.value, kept?.id === id ? kept.promptList : [], id);
  } else if (id) {
    showError("Enter the key to watch this mission.", true);
  }
  showControls();
}

function leave() {
  session?.end();
  session = null;
  view.draw(null);
  showError("");
  showMission(null);
}

function missionInAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("mission");
}

function remember(name, value) {
  try {
    sessionStorage.setItem(name, value);
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error;
    showError("The promptList is too large for this browser to keep; a reload will not show it.");
  }
}

function showControls() {
  runButton.disabled = session !== null && session.live;
  cancelButton.disabled = !runButton.disabled;
  runButton.textContent = session === null && missionInAddress() ? "Watch" : "Run";
}

function showConnection(state) {
  const element = byId("connection");
  element.textContent = CONNECTION[state];
  element.dataset.state = state;
}

function showError(message, ofKey = false) {
  byId("error").textContent = message;
  keyField.ariaInvalid = String(ofKey);
  editor.ariaInvalid = String(Boolean(message) && !ofKey);
  if (ofKey) keyField.focus();
}

function showMission(shown) {
  const mission = shown?.mission;
  const link = byId("mission-link");
  link.hidden = !mission;
  link.textContent = mission?.id ?? "";
  link.href = mission ? `#mission=${mission.id}` : "#";
  byId("nothing").hidden = Boolean(mission);
  byId("mission-status").textContent = mission ? describe(shown) : "";
}

function describe({ mission, cancelling }) {
  const count = `${mission.ended} of ${mission.nodes.size} nodes`;
  return `${ENDS[mission.status] ?? (cancelling ? "Cancelling" : "Running")}: ${count}`;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  remember("vision.key", keyField.value);
  if (session === null && missionInAddress()) watch();
  else run();
});
cancelButton.addEventListener("click", () => session.cancel());
editor.addEventListener("input", () => remember("vision.draft", editor.value));
editor.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  if (!runButton.disabled) form.requestSubmit();
});
window.addEventListener("hashchange", watch);

keyField.value = sessionStorage.getItem("vision.key") ?? "";
editor.value = sessionStorage.getItem("vision.draft") ?? editor.value;
showConnection("closed");
watch();
