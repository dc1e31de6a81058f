// Figures as people read them. null and undefined are a dash; every width is stable enough for a column.

const DASH = '–';
const none = (v) => v === null || v === undefined || Number.isNaN(v);

function digits(v) {
  if (v === 0 || v >= 100) return v.toFixed(0);
  return v >= 10 ? v.toFixed(1) : v.toFixed(2);
}

// 1234567 → "1.23M"
export function number(v) {
  if (none(v)) return DASH;
  for (const [unit, size] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) {
    if (v >= size * (size === 1e3 ? 10 : 1)) return digits(v / size) + unit;
  }
  return Number.isInteger(v) ? String(v) : digits(v);
}

export function rate(v) {
  if (none(v)) return DASH;
  return v === 0 ? '0' : v < 0.01 ? '<0.01' : v >= 1e4 ? number(v) : digits(v);
}

export function time(us) {
  if (none(us)) return DASH;
  if (us < 1000) return us.toFixed(0) + ' µs';
  return us < 1e6 ? digits(us / 1e3) + ' ms' : digits(us / 1e6) + ' s';
}

export function bytes(n) {
  if (none(n)) return DASH;
  for (const [unit, size] of [['TiB', 2 ** 40], ['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]]) {
    if (n >= size) return digits(n / size) + ' ' + unit;
  }
  return n.toFixed(0) + ' B';
}

export function percent(share) {
  return none(share) ? DASH : (share * 100).toFixed(share === 1 || share === 0 ? 0 : 1) + ' %';
}

// Seconds: "3 s", "4 min", "2 h 5 min", "3 d 4 h"
export function span(s) {
  if (none(s)) return DASH;
  if (s < 1) return '0 s';
  if (s < 60) return Math.floor(s) + ' s';
  if (s < 3600) return Math.floor(s / 60) + ' min';
  if (s < 86400) return Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min';
  return Math.floor(s / 86400) + ' d ' + Math.floor(s % 86400 / 3600) + ' h';
}
