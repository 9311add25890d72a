// The console's own behaviour: dialogs, copying, selections. Everything else is plain links and forms.
(function () {
  "use strict";

  function copy(text) {
    if (navigator.clipboard && window.isSecureContext) {
      return navigator.clipboard.writeText(text);
    }
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    return Promise.resolve();
  }

  function say(text) {
    let status = document.getElementById("oc-status");
    if (!status) {
      status = document.createElement("div");
      status.id = "oc-status";
      status.className = "oc-visually-hidden";
      status.setAttribute("role", "status");
      document.body.append(status);
    }
    status.textContent = text;
  }

  document.addEventListener("click", function (event) {
    const opener = event.target.closest("[data-dialog]");
    if (opener) {
      document.getElementById(opener.dataset.dialog).showModal();
      return;
    }
    const closer = event.target.closest("[data-close]");
    if (closer) {
      closer.closest("dialog").close();
      return;
    }
    const copier = event.target.closest("[data-copy], [data-copy-text]");
    if (copier) {
      const text = copier.dataset.copyText || document.querySelector(copier.dataset.copy).textContent;
      copy(text).then(function () {
        const before = copier.textContent;
        copier.textContent = "Copied";
        say("Copied");
        setTimeout(function () { copier.textContent = before; }, 1500);
      });
      return;
    }
    // Rows: [data-add-row="list"] adds a copy of the list's <template>, [data-remove-row] takes its [data-row] away.
    const adder = event.target.closest("[data-add-row]");
    if (adder) {
      const blank = document.querySelector("#" + adder.dataset.addRow + " > template");
      const row = blank.content.firstElementChild.cloneNode(true);
      blank.before(row);
      row.querySelector("input:not([type=hidden]), select").focus();
      return;
    }
    const remover = event.target.closest("[data-remove-row]");
    if (remover) {
      const row = remover.closest("[data-row]");
      const next = row.parentElement.closest("fieldset, form").querySelector("[data-add-row]");
      row.remove();
      if (next) { next.focus(); }
      return;
    }
    // A menu closes when something else is clicked.
    document.querySelectorAll("details.oc-menu[open]").forEach(function (menu) {
      if (!menu.contains(event.target)) { menu.open = false; }
    });
  });

  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") { return; }
    document.querySelectorAll("details.oc-menu[open]").forEach(function (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  });

  // A button that needs a word typed: <input data-must-be="anna"> enables the form's submit button.
  document.addEventListener("input", function (event) {
    const wanted = event.target.dataset && event.target.dataset.mustBe;
    if (wanted !== undefined) {
      event.target.form.querySelector("[type=submit]").disabled = event.target.value.trim() !== wanted;
    }
  });

  // Selections: [data-select-all] and [data-select] boxes, [data-selected-count], [data-needs-selection] buttons.
  function countSelected(form) {
    const boxes = form.querySelectorAll("[data-select]");
    const count = form.querySelectorAll("[data-select]:checked").length;
    const all = form.querySelector("[data-select-all]");
    const matching = form.querySelector("[data-select-matching]");
    const everything = Boolean(matching && matching.checked);
    if (all) {
      all.checked = count > 0 && count === boxes.length;
      all.indeterminate = count > 0 && count < boxes.length;
    }
    form.querySelectorAll("[data-selected-count]").forEach(function (place) {
      place.textContent = everything ? "All matching" : count + " selected";
    });
    form.querySelectorAll("[data-needs-selection]").forEach(function (button) {
      button.disabled = count === 0 && !everything;
    });
  }

  document.addEventListener("change", function (event) {
    const form = event.target.closest && event.target.closest("form[data-selection]");
    if (!form) { return; }
    if (event.target.matches("[data-select-all]")) {
      form.querySelectorAll("[data-select]").forEach(function (box) { box.checked = event.target.checked; });
    }
    countSelected(form);
  });

  // Also when the browser brings back a page with its boxes ticked.
  window.addEventListener("pageshow", function () {
    document.querySelectorAll("form[data-selection]").forEach(countSelected);
  });

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-must-be]").forEach(function (input) {
      input.form.querySelector("[type=submit]").disabled = input.value.trim() !== input.dataset.mustBe;
    });
    // Of tabs in a row that is too narrow for all, the present one is in sight.
    document.querySelectorAll(".oc-tab[aria-current]").forEach(function (tab) {
      const row = tab.parentElement;
      const left = tab.getBoundingClientRect().left - row.getBoundingClientRect().left + row.scrollLeft;
      row.scrollLeft = left - (row.clientWidth - tab.offsetWidth) / 2;
    });
    const broken = document.querySelector("[aria-invalid=true]");
    if (broken) { broken.focus(); }
  });
})();
