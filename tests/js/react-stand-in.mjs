// As much of React as the document's example calls, so that it runs without anything installed: elements are objects, and
// a root renders again whenever what a component subscribed to has changed.

let current = null;

export const createElement = (type, properties, ...children) => ({ type, properties: properties ?? {}, children: children.flat() });

export function useSyncExternalStore(subscribe, read) {
  current.unsubscribe ??= subscribe(current.render);
  const value = read();
  // React's own rule: without a change the value must be the same.
  if (read() !== value) throw new Error("the value of an external store must not change by being read");
  return value;
}

const expand = (node) => {
  if (node === null || node === undefined || node === false) return [];
  if (typeof node !== "object") return [String(node)];
  if (typeof node.type === "function") return expand(node.type(node.properties));
  return [{ ...node, children: node.children.flatMap(expand) }];
};

export const roots = [];

export function createRoot(place) {
  const root = { place, tree: [], unsubscribe: null };
  root.render = (element) => {
    root.element = element ?? root.element;
    const before = current;
    current = root;
    try {
      root.tree = expand(root.element);
    } finally {
      current = before;
    }
  };
  const own = root.render;
  root.render = (element) => own(element?.type ? element : undefined);
  roots.push(root);
  return root;
}

export const textOf = (nodes) => nodes.map((node) => (typeof node === "string" ? node : textOf(node.children))).join("|");
export const find = (nodes, type) => nodes.flatMap((node) => (typeof node === "string" ? [] : [...(node.type === type ? [node] : []), ...find(node.children, type)]));
