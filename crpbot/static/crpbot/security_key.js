/* Asks the browser for a security key when a form with data-key is sent, and sends what the key answered. */
"use strict";

(() => {
  async function ask(form) {
    const { creation_options, request_options } = JSON.parse(form.dataset.options);
    const key = await window.webauthnJSON[form.dataset.key](creation_options ?? request_options);
    form.elements.credential.value = JSON.stringify(key);
    HTMLFormElement.prototype.submit.call(form);
  }

  for (const form of document.querySelectorAll("form[data-key]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      ask(form).catch(() => { form.querySelector("[role=alert]").hidden = false; });
    });
  }
})();
