// The service counts characters as Python does, in code points; a string here counts UTF-16 units. Everything on the
// page is in units: offsets are converted once, where they come in.

/** A function from code points to units of `text`. It costs nothing for text without pairs. */
export function unitsOf(text) {
  if (!/[\ud800-\udfff]/.test(text)) return (offset) => offset;
  const pairs = [];
  let points = 0;
  for (let unit = 0; unit < text.length; points += 1) {
    const isPair = text.codePointAt(unit) > 0xffff;
    if (isPair) pairs.push(points);
    unit += isPair ? 2 : 1;
  }
  return (offset) => offset + countBelow(pairs, offset);
}

/** How many of the ascending `numbers` are below `limit`. */
function countBelow(numbers, limit) {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
