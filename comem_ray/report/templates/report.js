// The filter of a gallery: questions that some arm of the chosen mode answered with the chosen verdict, and that hold
// the text. Without this script all questions are shown.
document.querySelectorAll(".filter").forEach((form) => {
  const cards = [...document.getElementById(form.dataset.cards).children];
  const [arm, verdict, text] = ["arm", "verdict", "text"].map((name) => form.elements[name]);
  const apply = () => {
    const wanted = text.value.trim().toLowerCase();
    let shown = 0;
    for (const card of cards) {
      let found = false;
      for (const said of card.querySelectorAll(".said")) {
        const names = [...said.querySelectorAll(".arms li")];
        const asked = !arm.value || names.some((n) => n.dataset.mode === arm.value || n.dataset.arm === arm.value);
        said.hidden = !asked;
        found ||= asked && (!verdict.value || said.dataset.verdict === verdict.value);
      }
      card.hidden = !found || !card.textContent.toLowerCase().includes(wanted);
      shown += !card.hidden;
    }
    form.querySelector("output").value = `${shown} of ${cards.length} shown`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
});
