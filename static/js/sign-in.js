// Takes the sign-in code out of the address's fragment, which browsers never send, and posts it.

const form = document.querySelector("[data-sign-in]");
const code = new URLSearchParams(location.hash.slice(1)).get("code");
if (form && code) {
  history.replaceState(null, "", location.pathname);
  form.elements.code.value = code;
  form.submit();
}
