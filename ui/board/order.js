// The order that a person is building, as a value: functions take an order and return a new one.
//
//   groups   [[2], [1, 4]]  position 2 is best; 1 and 4 are tied behind it
//   tieNext  the next placed reply joins the last group
//   implied  the position that was placed by itself, because it was the only one left
//
// A group may be empty while the order is not complete: dragging can give the last place first.

export const EMPTY = Object.freeze({ groups: [], tieNext: false, implied: null });

/** Positions that have a place, best first. */
export function placed(order) {
  return order.groups.flat();
}

export function isEmpty(order) {
  return placed(order).length === 0;
}

export function isComplete(order, positions) {
  return positions.length > 1 && placed(order).length === positions.length;
}

/**
 * Give a position the next place. Placing it twice takes it out again. When one position is left
 * it follows by itself. On a complete order a new one begins, except that a reply placed by
 * itself can still be tied with those before it.
 */
export function place(order, position, positions) {
  if (!positions.includes(position)) return order;
  if (isComplete(order, positions)) {
    if (order.tieNext && order.implied === position) return tieImplied(order);
    return place(EMPTY, position, positions);
  }
  if (placed(order).includes(position)) return remove(order, position);
  const groups = order.groups.map((group) => [...group]);
  const gap = groups.findIndex((group) => !group.length);
  if (order.tieNext && gap !== 0) groups.at(gap - (gap > 0 ? 1 : 0)).push(position);
  else fillNext(groups, [position]);
  return withLast(groups, positions);
}

/** Put a group into the first gap, or behind all others. */
function fillNext(groups, group) {
  const gap = groups.findIndex((other) => !other.length);
  if (gap === -1) groups.push(group);
  else groups[gap] = group;
}

/** The only position that is left follows by itself; a complete order has no gaps. */
function withLast(groups, positions) {
  const left = positions.filter((other) => !groups.flat().includes(other));
  if (left.length === 1) fillNext(groups, left);
  const shown = left.length > 1 ? groups : groups.filter((group) => group.length);
  return { groups: shown, tieNext: false, implied: left.length === 1 ? left[0] : null };
}

/**
 * Put a position at a rank, 1 is best. Those that are in its way move towards the nearest gap
 * behind, else before it; so within a complete order it takes the place, and the others close up.
 */
export function putAt(order, position, rank, positions) {
  if (!positions.includes(position) || rank < 1 || rank > positions.length) return order;
  const slots = order.groups.map((group) => group.filter((other) => other !== position));
  while (slots.length < positions.length) slots.push([]);
  const at = rank - 1;
  let gap = slots.findIndex((group, index) => index >= at && !group.length);
  if (gap === -1) gap = slots.findLastIndex((group) => !group.length);
  slots.splice(gap, 1);
  slots.splice(at, 0, [position]);
  return withLast(trimmed(slots), positions);
}

/** Without the gaps behind the last group. */
function trimmed(groups) {
  return groups.slice(0, groups.findLastIndex((group) => group.length) + 1);
}

function tieImplied(order) {
  const groups = order.groups.slice(0, -1).map((group) => [...group]);
  groups.at(-1).push(order.implied);
  return { groups, tieNext: false, implied: null };
}

function remove(order, position) {
  const groups = order.groups
    .map((group) => group.filter((other) => other !== position))
    .filter((group) => group.length);
  return { groups, tieNext: false, implied: null };
}

/** Take the last placed position out again (and the one that followed by itself). */
export function takeBack(order) {
  if (order.tieNext) return { ...order, tieNext: false };
  const without = order.implied === null ? order : remove(order, order.implied);
  const last = placed(without).at(-1);
  return last === undefined ? EMPTY : remove(without, last);
}

/** The next placed reply is to tie with the one before; a second call takes that back. */
export function toggleTie(order) {
  return isEmpty(order) ? order : { ...order, tieNext: !order.tieNext };
}

/** All positions without a place are tied behind those that have one. */
export function restEqual(order, positions) {
  const left = positions.filter((position) => !placed(order).includes(position));
  if (isEmpty(order) || left.length === 0) return order;
  const groups = [...order.groups];
  fillNext(groups, left);
  return { groups: groups.filter((group) => group.length), tieNext: false, implied: null };
}

/** One group of all: nothing is better than anything else. */
export function allEqual(positions) {
  return { groups: [[...positions]], tieNext: false, implied: null };
}

/** The order without positions that are not (or no longer) to be ranked; null when none is left. */
export function only(order, positions) {
  const groups = order.groups
    .map((group) => group.filter((position) => positions.includes(position)))
    .filter((group) => group.length);
  return groups.length ? { ...order, groups, implied: null } : null;
}

/** Rank of a position, 1 is best; null while it has none. */
export function rankOf(order, position) {
  const index = order.groups.findIndex((group) => group.includes(position));
  return index === -1 ? null : index + 1;
}

/** True when another position has the same rank. */
export function isTied(order, position) {
  return order.groups.some((group) => group.length > 1 && group.includes(position));
}

/** The order that ranks by position describe, such as `{1: 2, 2: 1, 3: 2}`. */
export function fromRanks(ranks) {
  const groups = new Map();
  for (const [position, rank] of Object.entries(ranks)) {
    groups.set(rank, [...(groups.get(rank) ?? []), Number(position)]);
  }
  const sorted = [...groups.keys()].sort((a, b) => a - b);
  return {
    groups: sorted.map((rank) => groups.get(rank).sort((a, b) => a - b)),
    tieNext: false,
    implied: null,
  };
}

/** True when both give every position the same rank, and neither waits for a tie. */
export function isSame(one, other) {
  return !one.tieNext && !other.tieNext && orderText(sorted(one)) === orderText(sorted(other));
}

function sorted(order) {
  return { ...order, groups: order.groups.map((group) => [...group].sort((a, b) => a - b)) };
}

/** "2>1=4>3"; a gap is a question mark. */
export function orderText(order) {
  return order.groups.map((group) => group.join("=") || "?").join(">");
}
