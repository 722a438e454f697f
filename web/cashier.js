// The sandbox's cashier page: shows the order that its address names, and pays or refuses it.
//
// The law: the page knows nothing of its own; after every action it shows what the server answers.

const query = new URLSearchParams(location.search);
const element = (id) => document.getElementById(id);

async function ask(method, action) {
  const words = new URLSearchParams(query);
  if (action) words.set("action", action);
  const response = await fetch(`/api/payment/sandbox?${words}`, { method });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  return answer.data;
}

function show(order) {
  element("order").textContent = order.orderId;
  element("description").textContent = order.description;
  element("amount").textContent = `¥ ${order.yuan}`;
  element("state").textContent = order.declined && order.state === "open" ? "refused once" : order.state;
  const open = order.state === "open";
  element("pay").disabled = !open;
  element("decline").disabled = !open;
  element("pay-late").disabled = order.state === "paid" || order.state === "refunded";
}

async function act(method, action) {
  element("problem").textContent = "";
  try {
    show(await ask(method, action));
  } catch (problem) {
    element("problem").textContent = problem.message;
  }
}

for (const action of ["pay", "decline", "pay-late"]) {
  element(action).addEventListener("click", () => act("POST", action));
}
act("GET");
