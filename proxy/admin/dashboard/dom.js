// The little of the DOM that the page needs: elements, text that is written when it changed, tables
// whose rows stay. Text is never parsed as markup (the policy of the page forbids it).

export const $ = (id) => document.getElementById(id);

export function h(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === 'class') e.className = value;
    else if (name.startsWith('on') && typeof value === 'function') e.addEventListener(name.slice(2), value);
    else if (name in e && typeof value !== 'string') e[name] = value;
    else e.setAttribute(name, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

export function text(e, value) {
  if (e.firstChild?.nodeType === 3 && e.childNodes.length === 1) {
    if (e.firstChild.data !== value) e.firstChild.data = value;
  } else {
    e.textContent = value;
  }
}

export function mark(outcome) {
  const e = h('span', { class: 'mark' });
  e.style.background = `var(--${outcome})`;
  return e;
}

// A share of 0 to 1; where much of it is trouble, it says so by its colour.
export function meter(trouble) {
  return h('meter', trouble ? { min: 0, max: 1, optimum: 0, low: 0.8, high: 0.95 } : { min: 0, max: 1 });
}

// columns: {title, class, cell(row, td)}; cell gives the text, or fills td itself and gives nothing.
export class Table {
  constructor(table, columns, empty) {
    this.columns = columns;
    this.empty = empty;
    this.body = h('tbody');
    table.replaceChildren(
      h('thead', {}, h('tr', {}, ...columns.map((c) => h('th', { scope: 'col', class: c.class ?? '' }, c.title)))),
      this.body);
  }

  row() {
    return h('tr', {}, ...this.columns.map((c) => h('td', { class: c.class ?? '' })));
  }

  update(rows) {
    const { body, columns } = this;
    if (rows.length === 0) {
      if (!body.querySelector('.empty')) {
        body.replaceChildren(h('tr', {}, h('td', { class: 'empty', colSpan: columns.length }, this.empty)));
      }
      return;
    }
    body.querySelector('.empty')?.parentElement.remove();
    while (body.rows.length > rows.length) body.lastElementChild.remove();
    while (body.rows.length < rows.length) body.append(this.row());
    rows.forEach((row, i) => {
      columns.forEach((c, k) => {
        const td = body.rows[i].cells[k];
        const said = c.cell(row, td);
        if (said !== undefined) {
          text(td, said);
          if (/fill|short/.test(c.class)) td.title = said;
        }
      });
    });
  }
}

// Facts as a list of terms: [[term, text, class], ...]; the same terms each time keep their elements.
export function facts(dl, list) {
  while (dl.children.length > list.length) dl.lastElementChild.remove();
  list.forEach(([term, value, name = '', unit = ''], i) => {
    if (!dl.children[i]) dl.append(h('div', {}, h('dt'), h('dd', {}, h('span'), h('small'))));
    const [dt, dd] = dl.children[i].children;
    text(dt, term);
    text(dd.children[0], value);
    text(dd.children[1], unit);
    if (dd.className !== name) dd.className = name;
  });
}

// Asks in a dialog; true when it was agreed to.
export function confirmed(title, what, yes) {
  const dialog = $('confirm');
  text($('confirm-title'), title);
  text($('confirm-text'), what);
  text($('confirm-yes'), yes);
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}
