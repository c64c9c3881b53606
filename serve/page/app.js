// The page: two tabs over one API. Everything that it shows comes from this server.

import { Ask } from "./ask.js";
import { listenForImages } from "./image-field.js";
import { Knowledge } from "./knowledge.js";
import { setUpTabs } from "./tabs.js";

const ask = new Ask();
const knowledge = new Knowledge(async (item) => {
  openTab("ask");
  await ask.about(item);
});
const openTab = setUpTabs((id) => id === "knowledge" && knowledge.open());
listenForImages();
