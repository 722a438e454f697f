/**
 * What a mission is on the page: its nodes, and what its events make of them.
 *
 * The law: pure. No DOM, no network, no clock. A mission's text follows from its events alone: an
 * event is applied once, in the order of its number, so a page that lost its connection, or that
 * was loaded again, ends with the same text as one that saw everything at once.
 *
 * Events: see `vision/missions/events.py`.
 */

// The states that a node does not leave; each is also the type of the event that leads to it.
const ENDS = new Set(["done", "failed", "skipped", "cancelled"]);

/** The text of the editor is no promptList; the message says why. */
export class NotAPromptList extends Error {}

/** The promptList in a text: a JSON array, or a request body that holds one. */
export function parsePromptList(text) {
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new NotAPromptList(`This is not JSON yet: ${error.message}`);
  }
  const promptList = Array.isArray(parsed) ? parsed : parsed?.promptList;
  if (!Array.isArray(promptList)) {
    throw new NotAPromptList("A promptList is a JSON array of prompts: [{\"id\": …}, …]");
  }
  return promptList;
}

/** A node before its first event. */
function newNode(id, model, dependencies) {
  return { id, model, dependencies, state: "waiting", text: "", usage: null, error: null };
}

/** The node after one of its events. */
function nextNode(node, event) {
  if (event.type === "token") {
    const text = node.text + event.choices[0].text;
    return { ...node, state: "streaming", text, model: event.model };
  }
  if (event.type === "restarted") {
    return { ...node, state: "waiting", text: "" };
  }
  const { usage = null, error = null } = event;
  return { ...node, state: event.type, usage, error };
}

/** A mission as far as its events have been seen. `cursor` is the number of the last one. */
export class Mission {
  constructor(id, promptList) {
    this.id = id;
    this.promptList = promptList;
    this.reset();
  }

  /** Forget all events. */
  reset() {
    this.cursor = 0;
    this.status = "running";
    this.nodes = new Map();
    this.dependents = new Map();
    for (const { id, mid, dependenceIdList } of this.promptList) {
      this.#add(newNode(id, mid, dependenceIdList ?? []));
    }
  }

  #add(node) {
    this.nodes.set(node.id, node);
    for (const dependency of node.dependencies) {
      this.dependents.set(dependency, [...(this.dependents.get(dependency) ?? []), node.id]);
    }
  }

  /** Whether its last event has been seen. */
  get over() {
    return this.status !== "running";
  }

  /** How many of its nodes have ended. */
  get ended() {
    return [...this.nodes.values()].filter((node) => ENDS.has(node.state)).length;
  }

  /**
   * Apply an event, unless it was applied before, and return the ids of the nodes that look
   * different now. A node that the promptList did not name (a shared link comes without one)
   * joins with its first event.
   */
  apply(event) {
    if (event.seq <= this.cursor) return [];
    this.cursor = event.seq;
    if (event.type === "finished") {
      this.status = event.status;
      return [];
    }
    if (!this.nodes.has(event.id)) this.#add(newNode(event.id, event.model ?? "", []));
    this.nodes.set(event.id, nextNode(this.nodes.get(event.id), event));
    const ended = ENDS.has(event.type);
    return ended ? [event.id, ...(this.dependents.get(event.id) ?? [])] : [event.id];
  }

  /** Add what mission-query knows and events do not say: when each node began and ended. */
  addTimes(results) {
    for (const { id, startedAt, finishedAt } of results) {
      const node = this.nodes.get(id);
      if (node && startedAt && finishedAt) {
        this.nodes.set(id, { ...node, seconds: (finishedAt - startedAt) / 1000 });
      }
    }
  }

  /** The dependencies that a node still waits for. */
  openDependencies(node) {
    return node.dependencies.filter((id) => this.nodes.get(id)?.state !== "done");
  }

  /** The ids by depth: first the nodes without dependencies, then those that need only them, … */
  levels() {
    const open = new Map([...this.nodes].map(([id, node]) => [id, node.dependencies.length]));
    const levels = [];
    let level = [...open.keys()].filter((id) => open.get(id) === 0);
    while (level.length) {
      levels.push(level);
      const next = [];
      for (const dependent of level.flatMap((id) => this.dependents.get(id) ?? [])) {
        open.set(dependent, open.get(dependent) - 1);
        if (open.get(dependent) === 0) next.push(dependent);
      }
      level = next;
    }
    return levels;
  }
}
