// The filter of a gallery. It keeps the questions that contain the text and that an arm of the chosen mode answered with
// the chosen verdict. Without this script all questions are shown.
document.querySelectorAll(".filter").forEach((form) => {
  const cards = [...document.getElementById(form.dataset.cards).children];
  const [arm, verdict, text] = ["arm", "verdict", "text"].map((name) => form.elements[name]);
  const apply = () => {
    const wanted = text.value.trim().toLowerCase();
    let count = 0;
    for (const card of cards) {
      let matches = false;
      for (const prediction of card.querySelectorAll(".prediction")) {
        const names = [...prediction.querySelectorAll(".arms li")];
        const ofArm = !arm.value || names.some((n) => n.dataset.mode === arm.value || n.dataset.arm === arm.value);
        prediction.hidden = !ofArm;
        matches ||= ofArm && (!verdict.value || prediction.dataset.verdict === verdict.value);
      }
      card.hidden = !matches || !card.textContent.toLowerCase().includes(wanted);
      count += !card.hidden;
    }
    form.querySelector("output").value = `${count} of ${cards.length} questions`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
});
