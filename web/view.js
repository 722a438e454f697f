/**
 * The mission as cards, one a node, in rows by depth.
 *
 * The law: what a model or a person wrote enters the page as text, never as markup. Cards are drawn
 * at most once a frame, however many tokens arrive, and only those that changed.
 */

const PARTS = ["id", "state", "about", "error", "meta"];

// How near to its end a text counts as scrolled to it: less than a line.
const NEAR_END_PX = 8;

/** One node's card. */
class Card {
  constructor(template) {
    this.element = template.content.firstElementChild.cloneNode(true);
    this.parts = Object.fromEntries(PARTS.map((name) => [name, this.element.querySelector(`.${name}`)]));
    this.box = this.element.querySelector(".text");
    this.text = this.box.appendChild(document.createTextNode(""));
  }

  show(node, open) {
    const { id, state, about, error, meta } = this.parts;
    this.element.dataset.node = node.id;
    this.element.dataset.state = node.state;
    id.textContent = node.id;
    state.textContent = node.state === "waiting" && !open.length ? "starting" : node.state;
    about.textContent = describe(node);
    error.textContent = node.error?.message ?? "";
    meta.textContent = measure(node);
    this.#fill(node.text);
  }

  /** Append what is new, so that a selection in the text stays, and stay at its end. */
  #fill(text) {
    const { box } = this;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX;
    if (text.startsWith(this.text.data)) this.text.appendData(text.slice(this.text.length));
    else this.text.data = text;
    if (atEnd) box.scrollTop = box.scrollHeight;
  }
}

function describe({ model, dependencies }) {
  return dependencies.length ? `${model} · uses ${dependencies.join(", ")}` : model;
}

function measure({ usage, seconds }) {
  const parts = [];
  if (usage) parts.push(`${usage.prompt_tokens} tokens in, ${usage.completion_tokens} out`);
  if (seconds !== undefined) parts.push(`${seconds.toFixed(1)} s`);
  return parts.join(" · ");
}

/** All cards of the mission that the page shows. */
export class GraphView {
  #container;
  #template;
  #mission = null;
  #cards = new Map();
  #changed = new Set();
  #onFrame;
  #due = false;

  /** `onFrame` is called after each frame's cards, for what goes with them. */
  constructor(container, template, onFrame) {
    this.#container = container;
    this.#template = template;
    this.#onFrame = onFrame;
  }

  /** Show a mission from scratch; null shows none. */
  draw(mission) {
    this.#mission = mission;
    this.#cards.clear();
    this.#changed.clear();
    this.#container.replaceChildren();
    for (const ids of mission?.levels() ?? []) {
      const level = this.#addLevel();
      for (const id of ids) this.#addCard(level, id);
    }
  }

  /** Show what changed, with the next frame. */
  update(ids) {
    for (const id of ids) this.#changed.add(id);
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => this.#frame());
  }

  #frame() {
    this.#due = false;
    const changed = [...this.#changed];
    this.#changed.clear();
    for (const id of changed) {
      if (this.#cards.has(id)) this.#show(id);
      else this.#addCard(this.#container.firstElementChild ?? this.#addLevel(), id);
    }
    this.#onFrame();
  }

  #show(id) {
    const node = this.#mission.nodes.get(id);
    this.#cards.get(id).show(node, this.#mission.openDependencies(node));
  }

  #addLevel() {
    const level = document.createElement("ol");
    level.className = "level";
    return this.#container.appendChild(level);
  }

  #addCard(level, id) {
    const card = new Card(this.#template);
    this.#cards.set(id, card);
    level.append(card.element);
    this.#show(id);
  }
}
